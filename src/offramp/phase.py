"""A strategy is a program: a tuple of phases, each saying what trains, and nothing of how."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import cached_property
from typing import Annotated, Any, Literal, assert_never, get_args

from annotated_types import Ge, Gt, Le, Len, Lt

from offramp.errors import OfframpError, check_fields, shortened, wrong_fields
from offramp.hashing import YOUNGER
from offramp.parts import HIDDEN, LEARNED, Carry, Part, Parts, head, path
from offramp.units import Count, ranges

Exits = Count | Annotated[tuple[Count, ...], Len(1)]
"""One exit, or several: the mean of their logits."""
Weight = Annotated[float, Ge(0), Lt(math.inf)]
Share = Annotated[float, Ge(0), Le(1)]
Factors = Mapping[Parts, float] | Sequence[tuple[Parts, float]]


class Init(Enum):
    """Where a part's weights come from when a phase begins.

    Attributes:
        KEEP: What the program has left so far; before any phase, the initial weights.
        INITIAL: The initial weights again.
        FRESH: Drawn anew, with a seed of its own.

    >>> from offramp import CE, Init, Phase, head
    >>> Phase("again", train=head(1), loss=(CE(1),), init={head(1): Init.FRESH}).trained
    frozenset({Part(kind='head', index=1)})
    """

    KEEP = "keep"
    INITIAL = "initial"
    FRESH = "fresh"


Temperature = Annotated[float, Ge(0.01), Le(10_000)]  # its square multiplies a loss of float32


@dataclass(frozen=True)
class CE:
    """Cross-entropy at one exit, mean over the batch, times `weight` (paper eq. 2 without its 1/C).

    Raises:
        OfframpError: For an exit below 1, and a weight that is negative or not finite.

    >>> from offramp import CE
    >>> loss = (CE(1, weight=0.3), CE(2))  # a weighted sum of two exits' losses
    """

    exit: Count
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class KD:
    """Distillation: an exit learns the softened answers of the phase's teacher.

    The loss is τ²·KL(teacher ∥ student) of logits softened by the temperature τ, mean over the batch,
    times `weight` (paper eq. 4 and Algorithm 5).

    Attributes:
        exit: The student.
        teacher_exit: An exit of the teacher; of several, the mean of their logits teaches.
        temperature: τ, 0.01 to 10,000.
        weight: At least 0.

    Raises:
        OfframpError: For a number outside of these ranges.

    >>> from offramp import CE, KD
    >>> loss = (CE(1, weight=0.1), KD(1, teacher_exit=3, temperature=4.0, weight=0.9))
    """

    exit: Count
    teacher_exit: Exits
    temperature: Temperature = 3.0
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class MSE:
    """The logits of an exit learn those of the phase's teacher: the mean, over images and classes, of
    their squared difference, times `weight`.

    Attributes:
        exit: The student.
        teacher_exit: An exit of the teacher; of several, the mean of their logits teaches.
        weight: At least 0.

    Raises:
        OfframpError: For an exit below 1, and a weight that is negative or not finite.

    >>> from offramp import CE, LIVE, MSE, Phase, heads, segments
    >>> everything = segments(1, 3) | heads(1, 3)
    >>> loss = tuple(term for k in (1, 2, 3) for term in (CE(k), MSE(k, teacher_exit=(1, 2, 3))))
    >>> Phase("together", train=everything, loss=loss, teacher=LIVE).exits
    (1, 2, 3)
    """

    exit: Count
    teacher_exit: Exits
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Features:
    """The features of an exit, through an adapter, learn those of the phase's teacher: the squared
    difference, mean over images, times `weight`.

    Features [B, D] are what an exit's last linear layer reads; those of the final exit are what its
    classifier reads, averaged over the map or the tokens. The adapter is a linear layer onto as many
    features as the teacher has. It trains with the phase and ends with it: no network keeps it.

    Attributes:
        exit: The student.
        teacher_exit: An exit of the teacher. Of several, the mean of their features teaches; each but
            the deepest goes through an adapter onto the deepest's features. So the teacher must be LIVE,
            and each but the deepest must have a term that trains its adapter.
        weight: At least 0.
        over: The `mean` of the features' differences, or their `sum`, the square of the L2 norm.

    Raises:
        OfframpError: For an exit below 1, a weight that is negative or not finite, and another `over`.

    >>> from offramp import CE, LIVE, Features, Phase, heads, segments
    >>> loss = (CE(1), CE(2), CE(3), Features(1, teacher_exit=3), Features(2, teacher_exit=3))
    >>> Phase("together", train=segments(1, 3) | heads(1, 3), loss=loss, teacher=LIVE).exits
    (1, 2, 3)
    """

    exit: Count
    teacher_exit: Exits
    weight: Weight = 1.0
    over: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Gates:
    """The gates of all exits but the last of `exits` learn which images should leave there.

    An image's best exit is the one of least cross-entropy + cost · (MACs up to there / MACs up to the
    last). A gate reads four statistics of its exit's answer; no gradient goes back to the answer. It
    learns, by binary cross-entropy, whether the best exit is its own or an earlier one. Cases that leave
    weigh (cases that stay / cases that leave), counted over all gates of the batch. A gate trains with
    its head (JEI-DNN, arXiv 2310.09163).

    Attributes:
        exits: Two or more, ascending.
        cost: Of the whole network, in units of cross-entropy; at least 0.
        weight: At least 0.

    Raises:
        OfframpError: For fewer than two exits, and a cost or a weight that is negative or not finite.

    >>> from offramp import CE, Gated, Gates, Phase, heads
    >>> loss = (CE(1), CE(2), Gates(exits=(1, 2, 3)))
    >>> Phase("together", heads(1, 2), loss, sample_weights=Gated()).exits
    (1, 2, 3)
    """

    exits: Annotated[tuple[Count, ...], Len(2)]
    cost: Weight = 0.15
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


Term = CE | KD | MSE | Features | Gates
Loss = tuple[Term, ...]


def teachers(term: Term) -> tuple[int, ...]:
    """The exits that a term learns from; only distillation has some."""
    match term:
        case KD() | MSE() | Features():
            return term.teacher_exit if isinstance(term.teacher_exit, tuple) else (term.teacher_exit,)
        case CE() | Gates():
            return ()
        case _:
            assert_never(term)


def students(term: Term) -> tuple[int, ...]:
    """The exits whose answers a term reads, those of its teacher aside."""
    match term:
        case CE() | KD() | MSE() | Features():
            return (term.exit,)
        case Gates():
            return term.exits
        case _:
            assert_never(term)


def featured(loss: Loss) -> frozenset[int]:
    """The exits whose features a loss reads, of the network that trains and of its teacher."""
    return frozenset(k for t in loss if isinstance(t, Features) for k in (t.exit, *teachers(t)))


def adapters(loss: Loss) -> tuple[tuple[int, int], ...]:
    """The adapters that a loss trains, in order: from which exit's features, onto which exit's. An exit
    that learns from itself has none."""
    pairs = {(t.exit, max(teachers(t))) for t in loss if isinstance(t, Features)}
    return tuple(sorted(pair for pair in pairs if pair[0] != pair[1]))


@dataclass(frozen=True)
class Unsolved:
    """Weights of images: at exits behind one that has solved an image, it counts less or not at all
    (confidence-gated training, arXiv 2509.17885).

    Attributes:
        hard: An exit has solved an image if its answer is right and has at least the probability
            `threshold`; later exits then do not see it. If not hard, each exit multiplies an image's
            weight at later exits by one minus the probability that it gives the true class.
        threshold: 0 to 1.

    Raises:
        OfframpError: For a threshold outside 0 to 1.

    >>> from offramp import CE, Phase, Unsolved, heads, segments
    >>> everything = segments(1, 3) | heads(1, 3)
    >>> Phase("together", everything, (CE(1), CE(2), CE(3)), sample_weights=Unsolved()).exits
    (1, 2, 3)
    """

    hard: bool = True
    threshold: Share = 0.5

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Survivors:
    """Weights of images: at each exit the probability that an image gets there.

    It leaves an exit with the probability σ((confidence - threshold) / width), confidence being the
    largest of the exit's probabilities (soft cascades, arXiv 2509.08318).

    Attributes:
        threshold: 0 to 1.
        width: Above 0.

    Raises:
        OfframpError: For a threshold outside 0 to 1, and a width that is not positive.

    >>> from offramp import BEFORE, KD, Phase, Survivors, heads
    >>> loss = (KD(1, teacher_exit=3), KD(2, teacher_exit=3))
    >>> Phase("heads", heads(1, 2), loss, teacher=BEFORE, sample_weights=Survivors(0.9)).exits
    (1, 2)
    """

    threshold: Share = 0.8
    width: Annotated[float, Gt(0), Lt(math.inf)] = 0.05

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Gated:
    """Weights of images: at each exit the probability, by the gates, that an image leaves there.

    It is what the exit's gate answers, from 0 to 1, but at most what earlier gates left over. The final
    exit gets the rest.

    References:
        JEI-DNN, arXiv 2310.09163.

    >>> from offramp import CE, Gated, Gates, Phase, heads
    >>> Phase("together", heads(1, 1), (CE(1), Gates((1, 2))), sample_weights=Gated()).exits
    (1, 2)
    """


SampleWeights = Unsolved | Survivors | Gated

BEFORE = "before training"
"""As a phase's `teacher`: the weights that the network had before training."""
LIVE = "live"
"""As a phase's `teacher`: the network that trains, as it is in the same step, without a gradient."""


def describe(loss: Loss) -> str:
    """`0.3·CE(1) + 0.9·KD(4→1, τ=3)`."""
    words = []
    for term in loss:
        weight = "" if term.weight == 1 else f"{term.weight:.4g}·"
        taught = f"{','.join(map(str, teachers(term)))}→{students(term)[-1]}"
        match term:
            case Gates():
                words.append(f"{weight}Gates({','.join(map(str, term.exits))}, λ={term.cost:g})")
            case CE():
                words.append(f"{weight}CE({term.exit})")
            case KD():
                words.append(f"{weight}KD({taught}, τ={term.temperature:g})")
            case MSE():
                words.append(f"{weight}MSE({taught})")
            case Features():
                words.append(f"{weight}features({taught}, {term.over})")
            case _:
                assert_never(term)
    return " + ".join(words)


# The fields that say something of each of several parts or settings: how one is written, and what its
# pairs are made of.
_PAIRS: dict[str, tuple[str, type, Any]] = {
    "init": ("init={head(1): Init.FRESH}", frozenset, Init),
    "recipe": ("recipe={'epochs': 5}", str, object),
    "backward": ("backward={head(1): 0.5}", frozenset, int | float),
    "rates": ("rates={backbone(3): 0.1}", frozenset, int | float),
}

STRUCTURE = frozenset({"name", "train", "loss", "trunk", "init", "teacher", "recipe"})
"""The fields of a phase that say what trains, on which loss and from which weights. Keys have these in
forms of their own (`engine/resolve.py`). Every other field is a setting: keys, texts and training have
it by its name."""


@dataclass(frozen=True)
class Phase:
    """One training run.

    Attributes:
        name: For people; no result depends on it.
        train: The parts that train; every other part the loss reads is frozen.
        loss: The terms to add up. A term of weight zero reads nothing and is dropped.
        trunk: 0 is the shared trunk; n is exit n's own, which starts as a copy of the shared one.
        init: The parts that do not start from the weights that they have by then: `{parts: Init}`, or
            pairs (parts, Init).
        teacher: The earlier phase whose resulting weights the KD, MSE and Features terms read, frozen;
            or `BEFORE`: the weights the network had before training; or `LIVE`: the network as it is in
            the same step.
        recipe: Fields of the recipe that this phase overrides: a mapping, or (field, value) pairs.
        backward: `{parts: factor}`, or pairs (parts, factor): the gradient that such a part sends back
            to what it reads is multiplied by the factor. 0 stops it: the part trains, and what is below
            gets no gradient of it.
        sample_weights: What each image counts for at each exit, by the logits of the same step:
            `Unsolved`, `Survivors` or `Gated`.
        carry: The share of the previous exit's answer that an exit adds to its head's logits, in
            training (without a gradient to that exit) and in use. 0: each answers alone.
            "learned": each early exit after the first adds that answer times a matrix
            [classes, classes], which is a part of its head and begins at zero; the final exit answers
            alone. "hidden": the same, through a hidden layer with BatchNorm and ReLU, as wide as the
            exit's features. Phases before the first that learns to carry need not carry.
        rates: `{parts: factor}`, or pairs (parts, factor): such a part trains at the factor times the
            recipe's learning rate; all parts that train and are not named train at the rate itself.

    Raises:
        OfframpError: For a `train`, `init`, `backward`, `rates` or `recipe` of another form.

    >>> from offramp import CE, Phase, backbone, head
    >>> first = Phase("backbone", train=backbone(3), loss=(CE(3),))
    >>> then = Phase("exit 1", train=head(1), loss=(CE(1),), recipe=(("epochs", 5),))
    >>> then.exits
    (1,)
    """

    name: str
    train: Parts
    loss: Sequence[Term]
    trunk: int = 0
    init: Mapping[Parts, Init] | Sequence[tuple[Parts, Init]] = ()
    teacher: str | None = None
    recipe: Mapping[str, Any] | Sequence[tuple[str, Any]] = ()
    backward: Factors = ()
    sample_weights: SampleWeights | None = None
    carry: Carry = 0.0
    rates: Factors = field(default=(), metadata=YOUNGER)

    def __post_init__(self) -> None:
        if isinstance(self.loss, list):
            object.__setattr__(self, "loss", tuple(self.loss))
        self._require("train=head(1) | segment(1)", self.train, isinstance(self.train, frozenset))
        for name, (example, first, second) in _PAIRS.items():
            written = getattr(self, name)
            pairs = written.items() if isinstance(written, Mapping) else written
            pairs = tuple(pairs) if isinstance(pairs, Iterable) else pairs
            self._require(example, written, _are_pairs(pairs, first, second))
            object.__setattr__(self, name, pairs)

    def _require(self, example: str, value: Any, fits: bool) -> None:
        if not fits:
            field, text = example.partition("=")[0], shortened(repr(value), 60)
            raise OfframpError(f"phase '{self.name}' cannot take {field}={text}; write {example}")

    @cached_property
    def terms(self) -> Loss:
        """The terms that count."""
        return tuple(term for term in self.loss if term.weight != 0)

    @cached_property
    def taught(self) -> frozenset[int]:
        """The exits of the teacher that its terms read."""
        return frozenset(exit for term in self.terms for exit in teachers(term))

    @cached_property
    def exits(self) -> tuple[int, ...]:
        """The exits that the loss reads of the network in training, ascending."""
        live = self.taught if self.live else ()
        return tuple(sorted({*(exit for term in self.terms for exit in students(term)), *live}))

    @property
    def live(self) -> bool:
        """Whether the network that trains is its own teacher."""
        return self.teacher == LIVE

    @cached_property
    def starts(self) -> dict[Part, Init]:
        """Where the weights of each part of `init` come from."""
        return _by_part(self.init)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What it sets beside `STRUCTURE`, by field, if that changes its training; factors by part."""
        settings = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in STRUCTURE or value == each.default:
                continue
            if each.name in _PAIRS:  # a factor of 1 changes nothing
                factors = {part: float(factor) for part, factor in _by_part(value).items()}
                value = {part: factor for part, factor in sorted(factors.items()) if factor != 1}
            if value != {}:
                settings[each.name] = value
        return settings

    @property
    def scales(self) -> dict[Part, float]:
        """The factor of each part that sends its gradient back scaled."""
        scales: dict[Part, float] = self.settings.get("backward", {})
        return scales

    @cached_property
    def trained(self) -> Parts:
        """The parts that train and that the loss reaches."""
        stops = {part for part, factor in self.scales.items() if factor == 0}
        return self.train & frozenset(part for term in self.terms for part in _reached_by(term, stops))

    @property
    def gated(self) -> bool:
        """Whether it asks the gates of exits."""
        return isinstance(self.sample_weights, Gated) or any(isinstance(t, Gates) for t in self.terms)


def notes(phase: Phase) -> list[str]:
    """What a phase says beside what trains on which loss, for people.

    Returns:
        A line for each field that is not as usual.

    >>> from offramp import CE, Init, Phase, head
    >>> recipe = {"optimizer": "adam", "patience": None, "step_at": (0.5, 0.9)}
    >>> notes(Phase("exit 1", head(1), (CE(1),), recipe=recipe, init={head(1): Init.FRESH}))
    ['head 1 fresh', 'optimizer adam', 'patience none', 'step_at 0.5, 0.9']
    """
    lines = []
    for each in fields(phase):
        value = getattr(phase, each.name)
        match each.name:
            case "name" | "train" | "loss":
                continue  # which stand elsewhere in every text
            case _ if value == each.default:
                continue
            case "trunk":
                lines.append(f"on a trunk of exit {value}'s own")
            case "init":
                lines += [f"{part} {init.value}" for part, init in sorted(phase.starts.items())]
            case "teacher":
                lines.append(f"teacher: {value}")
            case "recipe":
                lines += [f"{name} {_word(setting)}" for name, setting in value]
            case "backward":
                lines += _of_parts(phase.scales, "send back {} of the gradient")
            case "rates":
                lines += _of_parts(phase.settings.get("rates", {}), "at {} of the learning rate")
            case "sample_weights":
                lines.append(f"images weighed by {value}")
            case "carry":
                lines.append(_carrying(value))
            case _:
                lines.append(f"{each.name} {_word(value)}")
    return lines


def listed(parts: Collection[Part]) -> str:
    """`segments 1–4, head 4`"""
    words = []
    for kind in ("segment", "head"):
        numbers = [part.index for part in parts if part.kind == kind]
        if numbers:
            words.append(f"{kind}{'s' if len(numbers) > 1 else ''} {ranges(numbers)}")
    return ", ".join(words)


def _of_parts(factors: Mapping[Part, float], words: str) -> list[str]:
    alike: dict[float, list[Part]] = {}
    for part, factor in factors.items():
        alike.setdefault(factor, []).append(part)
    return [f"{listed(parts)} {words.format(f'{factor:.3g}')}" for factor, parts in alike.items()]


def _carrying(carry: Carry) -> str:
    match carry:
        case "learned":
            return "each early exit adds a learned matrix times the answer before"
        case "hidden":
            return "each early exit adds a learned matrix times the answer before through a hidden layer"
        case float() | int():
            return f"each exit adds {carry:g} of the answer before"
        case _:
            assert_never(carry)


def _word(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(_word, value))
    if isinstance(value, bool | None):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _are_pairs(value: Any, first: Any, second: Any) -> bool:
    """Whether it is a tuple of pairs of these types."""
    pairs = isinstance(value, tuple) and all(isinstance(p, tuple) and len(p) == 2 for p in value)
    return pairs and all(isinstance(a, first) and isinstance(b, second) for a, b in value)


def _by_part(pairs: Any) -> dict[Part, Any]:
    return {part: value for parts, value in pairs for part in parts}


def _reached_by(term: Term, stops: Collection[Part]) -> Iterator[Part]:
    """The parts that get a gradient of a term, where the parts `stops` send none back."""
    match term:
        case Gates():  # gates are parts of heads
            yield from (Part("head", exit) for exit in term.exits[:-1])
        case CE() | KD() | MSE() | Features():
            for part in reversed(path(term.exit)):
                yield part
                if part in stops:
                    return
        case _:
            assert_never(term)


Program = tuple[Phase, ...]

# Under the last, tables have a trial's closing metrics.
RESERVED_NAMES = {BEFORE, LIVE, "final"}


def check(program: Program, exits: int) -> None:
    """Refuse a program that cannot run on a network with `exits` exits.

    Raises:
        OfframpError: With the phase and what is wrong with it.
    """
    if not program:
        raise OfframpError("the strategy has no phases; return at least one Phase")
    earlier = {BEFORE, LIVE}
    carry, begun = carry_of(program), False
    for phase in program:
        for mistake in _mistakes(phase, exits, earlier):
            raise OfframpError(f"phase '{phase.name}' {mistake}")
        begun = begun or bool(phase.carry)
        # What is learned adds nothing at first, nor ever to the final exit.
        alone = isinstance(carry, str) and not phase.carry and (not begun or phase.exits == (exits,))
        if phase.carry != carry and not alone:
            raise OfframpError(
                f"phase '{phase.name}' has another carry than an earlier phase; give all the same"
            )
        earlier.add(phase.name)


def check_gates(program: Iterable[Phase], several: bool) -> None:
    """Refuse, for several labels an image, a program with gates."""
    gated = next((phase for phase in program if several and phase.gated), None)
    if gated is not None:
        raise OfframpError(
            f"phase '{gated.name}' has gates, which read the probabilities of one class an image, and "
            "each image has several labels; choose another strategy"
        )


def _mistakes(phase: Phase, exits: int, earlier: Collection[str]) -> Iterator[str]:
    """What is wrong with a phase, from what others build on: only the first one is to be believed."""
    if not isinstance(phase.name, str):
        yield "has a name that is no text; write it in quotes"
    if type(phase.trunk) is not int or not 0 <= phase.trunk <= exits:
        yield f"is on the trunk {phase.trunk!r}; give 0, or the number of an exit, 1 to {exits}"
    if phase.name in RESERVED_NAMES:
        yield "has a name that means something else; give it another"
    if phase.name in earlier:
        yield "appears twice; give each phase a name of its own"
    yield from _mistakes_of_loss(phase)
    yield from _mistakes_of_parts(phase, exits)
    if phase.carry:
        yield from _mistakes_of_carry(phase, exits)
    if phase.taught and phase.teacher is None:
        yield "distills from nobody; give teacher= an earlier phase, BEFORE or LIVE"
    if phase.teacher is not None and phase.teacher not in earlier:
        yield f"distills from '{phase.teacher}', which is not an earlier phase"
    yield from _mistakes_of_features(phase)
    for name, words in wrong_fields(phase):  # of whatever no line above looks at
        yield f"has a {name} that {words}"


def _mistakes_of_loss(phase: Phase) -> Iterator[str]:
    if not isinstance(phase.loss, tuple) or not all(isinstance(t, Term) for t in phase.loss):
        *kinds, last = (kind.__name__ for kind in get_args(Term))
        yield f"has no tuple of {', '.join(kinds)} and {last}; write loss=(CE(1),)"
    for term in phase.terms:
        if list(students(term)) != sorted(set(students(term))):
            yield f"has {type(term).__name__} of exits {students(term)}; name each once, ascending"
    if not phase.terms:
        yield "has no loss; give it at least one term of weight above zero"
    if phase.sample_weights is not None and not isinstance(phase.sample_weights, SampleWeights):
        yield f"weighs images by {phase.sample_weights!r}; give Unsolved(), Survivors() or Gated()"


def _mistakes_of_parts(phase: Phase, exits: int) -> Iterator[str]:
    """Whether the network has the parts that it names, and any of those that train learns."""
    named = phase.train.union(phase.starts, _by_part(phase.backward), _by_part(phase.rates))
    numbers = {*phase.exits, *phase.taught, *(part.index for part in named)}
    if not numbers <= set(range(1, exits + 1)):
        yield f"names an exit outside 1 to {exits}"
    # The features of the final exit are what its head reads, so they teach that head nothing.
    deaf = all(isinstance(t, Features) for t in phase.terms if exits in students(t))
    if not phase.trained - (head(exits) if deaf else frozenset()):
        yield "trains nothing that its loss reads; train a part on its path"
    if not all(0 <= factor < math.inf for factor in phase.scales.values()):
        yield "sends back a gradient times a number that is negative or infinite"
    for part, factor in _by_part(phase.rates).items():
        if part not in phase.trained:
            yield f"gives {part} a learning rate, and does not train it; name parts that it trains"
        if not 0 < factor < math.inf:
            yield f"trains {part} at {factor:g} of the learning rate; give a factor above 0"


def _mistakes_of_features(phase: Phase) -> Iterator[str]:
    for term in phase.terms:
        onto = max(teachers(term), default=0)
        needed = {(k, onto) for k in teachers(term) if k != onto}
        if not isinstance(term, Features) or not needed:
            continue
        if not phase.live:
            yield (
                "learns from the features of several exits of a frozen teacher, which has no "
                "adapters; name one teacher_exit, or use LIVE"
            )
        if lacking := needed - set(adapters(phase.terms)):
            k = min(lacking)[0]
            yield (
                f"learns from the features of exit {k} through an adapter that nothing trains; "
                f"add Features({k}, {term.teacher_exit})"
            )


def carry_of(program: Program) -> Carry:
    """What exits add of the answer before, once the program has run."""
    return next((phase.carry for phase in program if phase.carry), 0.0)


def _mistakes_of_carry(phase: Phase, exits: int) -> Iterator[str]:
    learned = phase.carry in (LEARNED, HIDDEN)
    if not learned and (isinstance(phase.carry, str | bool) or not 0 < phase.carry <= 1):
        yield f"carries {phase.carry} of an answer; give a share from 0 to 1, 'learned' or 'hidden'"
    apart = {exits} if learned else set()  # answers alone, in training and as a teacher
    read = [k for k in phase.exits if k not in apart]
    if read != [*range(1, len(read) + 1)]:
        yield "carries answers on, so its loss must read all exits before its last"
    if phase.teacher not in (None, LIVE) and not phase.taught <= apart:
        yield "carries answers on, and has a frozen teacher; use LIVE, or none"
