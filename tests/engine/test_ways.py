"""What strategies beyond the paper ask of a step: losses and gradients against ones written out here.

The reference runs the whole network once, by its own forward, and leaves the engine out. K is 4. Losses
between features are left to test_features.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from fit_runs import program_nodes, setting
from one_step import ALL, Gradients, K, by_the_engine, ce, close, first_step, gradients_of, kl, node_of
from syrupy.assertion import SnapshotAssertion
from torch import Tensor

from offramp.engine.losses import LossContext, objective, sample_weights
from offramp.engine.resolve import Node, Source, resolve
from offramp.engine.settings import applied
from offramp.engine.trainee import loss_of
from offramp.engine.weights import Weights
from offramp.nets import ExitNetwork
from offramp.nets.heads import Head
from offramp.nets.network import inside, redrawn
from offramp.parts import heads, segments
from offramp.phase import CE, KD, LIVE, MSE, Phase, Program, Survivors, Unsolved, check
from offramp.strategies import STRATEGIES
from support import NUMERICS, network
from wording import refusal

Loss = Callable[[Sequence[Tensor], Tensor], Tensor]  # logits of heads 1 … K, labels → a scalar
Run = Callable[[ExitNetwork, Tensor, Tensor], Tensor]  # a network, images and labels → a scalar
Read = Callable[[Any, Tensor], tuple[Tensor, Tensor]]  # a layer, the answer before → values, weights


def on_logits(loss: Loss) -> Run:
    return lambda net, pixels, labels: loss(own_logits(net, pixels), labels)


def by_hand(node: Node, loss: Loss) -> tuple[float, Gradients]:
    return by_hand_from(node, on_logits(loss))


def by_hand_from(node: Node, run: Run, whole: bool = False) -> tuple[float, Gradients]:
    """whole: whether all of the network trains, whatever parts the phase names."""
    with applied(NUMERICS):
        trainee, _, pixels, labels = first_step(node)
        if whole:
            trainee.net.requires_grad_(True)
        return gradients_of(trainee, run(trainee.net, pixels, labels))


def as_by_hand(node: Node, run: Run, whole: bool = False) -> tuple[float, Gradients]:
    """The engine's loss and gradients, once they are those of `run`."""
    loss, gradients = by_the_engine(node)
    value, expected = by_hand_from(node, run, whole)
    assert loss == pytest.approx(value, rel=1e-5)
    assert close(gradients, expected)
    return loss, gradients


def own_logits(net: ExitNetwork, pixels: Tensor) -> list[Tensor]:
    """Of every exit's head, nothing carried."""
    tensors, logits = (pixels,), []
    for k in range(1, K):
        tensors = inside(net).segment(k)(*tensors)
        logits.append(inside(net).heads[k - 1].body(inside(net).heads[k - 1].pool(tensors[0])))
    return [*logits, inside(net).head_body(K)(*inside(net).segment(K)(*tensors))]


def every(z: Sequence[Tensor], y: Tensor) -> Tensor:
    return torch.stack([ce(each, y).mean() for each in z]).sum()


def only(k: int) -> Loss:
    """The cross-entropy of one exit, from 0; the others are read for nothing."""
    return lambda z, y: ce(z[k], y).mean() + 0 * torch.stack([each.sum() for each in z]).sum()


def mixed(z: Sequence[Tensor], y: Tensor) -> Tensor:
    return torch.stack([ce(each, y).mean() for each in z]).mean()


def self_distillation(z: Sequence[Tensor], y: Tensor) -> Tensor:
    early = sum((0.7 * ce(each, y) + 0.3 * kl(each, z[-1], 3.0)).mean() for each in z[:-1])
    return early + ce(z[-1], y).mean()


def imta(z: Sequence[Tensor], y: Tensor) -> Tensor:
    early = sum((0.9 * ce(each, y) + 0.1 * kl(each, z[-1], 1.0)).mean() for each in z[:-1])
    return early + ce(z[-1], y).mean()


def exit_ensemble(z: Sequence[Tensor], y: Tensor) -> Tensor:
    mean = sum(z).detach() / len(z)
    return torch.stack([ce(each, y).mean() + ((each - mean) ** 2).mean() for each in z]).sum()


def confidence_gated(z: Sequence[Tensor], y: Tensor) -> Tensor:
    left, total = torch.ones(len(y)), torch.zeros(())
    for each in z:
        total = total + (left * ce(each, y)).mean()
        left = left * (1 - each.detach().softmax(1)[torch.arange(len(y)), y])
    return total


def hard_gated(z: Sequence[Tensor], y: Tensor) -> Tensor:
    total = torch.zeros(())
    for row in range(len(y)):
        for each in z:
            total = total + ce(each[row : row + 1], y[row : row + 1])[0] / len(y)
            p = each[row].softmax(0)
            if p.argmax() == y[row] and p.max() >= 0.2:
                break
    return total


def survivors(z: Sequence[Tensor], y: Tensor) -> Tensor:
    left, total = torch.ones(len(y)), torch.zeros(())
    for each in z[:-1]:
        total = total + (left * kl(each, z[-1], 3.0)).mean()
        highest = each.detach().softmax(1).amax(1)
        left = left * (1 - 1 / (1 + torch.exp(-(highest - 0.3) / 0.05)))
    return total


def all_survive(z: Sequence[Tensor], _: Tensor) -> Tensor:
    return torch.stack([kl(each, z[-1], 3.0).mean() for each in z[:-1]]).sum()


def boosted(z: Sequence[Tensor], y: Tensor) -> Tensor:
    """Without the scaled gradients."""
    total, before = torch.zeros(()), torch.zeros_like(z[0])
    for each in z:
        answer = each + 0.5 * before
        total, before = total + ce(answer, y).mean(), answer.detach()
    return total


def boosted_plainly() -> Program:
    return tuple(replace(phase, backward=()) for phase in STRATEGIES["boosted"](K))


def last_read(head: Head, tap: Tensor) -> tuple[Tensor, torch.nn.Linear]:
    """What the last layer of a head reads, and that layer."""
    assert isinstance(head.body, torch.nn.Sequential)
    *layers, last = head.body
    assert isinstance(last, torch.nn.Linear)
    features = head.pool(tap)
    for layer in layers:
        features = layer(features)
    return features, last


def in_turn(net: ExitNetwork, pixels: Tensor, read: Read | None) -> list[Tensor]:
    """The logits of every exit: the last layer of an early head reads its features and what `read` makes
    of the answer before."""
    tensors, z = (pixels,), []
    for k, head in enumerate(inside(net).heads, start=1):
        tensors = inside(net).segment(k)(*tensors)
        features, last = last_read(head, tensors[0])
        weight = last.weight
        if head.before is not None and read is not None:
            more, matrix = read(head.before, z[-1])
            features, weight = torch.cat([features, more], dim=1), torch.cat([weight, matrix], dim=1)
        z.append(features @ weight.T + last.bias)
    return [*z, inside(net).head_body(K)(*inside(net).segment(K)(*tensors))]


def cascade(detach: bool = True, reads_before: bool = True) -> Run:
    """As the source writes it: the last layer of a head reads its features and the answer before."""

    def read(adds: Any, before: Tensor) -> tuple[Tensor, Tensor]:
        return before.detach() if detach else before, adds.weight

    def run(net: ExitNetwork, pixels: Tensor, y: Tensor) -> Tensor:
        early = in_turn(net, pixels, read if reads_before else None)[:-1]
        return torch.stack([ce(logits, y).mean() for logits in early]).sum()

    return run


def one_after_another() -> Program:
    """The last head of a cascade alone, on earlier ones that stand still."""
    *start, phase = STRATEGIES["cascade"](K)
    return (*start, phase, replace(phase, name="again", train=heads(K - 1, K - 1)))


def collaborating(detach: bool = True, reads_before: bool = True) -> Run:
    """As the source of IMTA writes it: the last layer of a head reads its features and what a layer with
    BatchNorm and ReLU makes of the answer before. The source lets the gradient pass, too."""

    def read(adds: Any, before: Tensor) -> tuple[Tensor, Tensor]:
        dense, norm, _, matrix = adds
        values = (before.detach() if detach else before) @ dense.weight.T
        spread = (values.var(0, unbiased=False) + 1e-5).sqrt()
        values = (values - values.mean(0)) / spread * norm.weight + norm.bias
        return values.clamp(min=0), matrix.weight

    return lambda net, pixels, y: imta(in_turn(net, pixels, read if reads_before else None), y)


def test_collaborating_heads_read_the_answer_before_through_a_layer() -> None:
    node = node_of(STRATEGIES["imta"](K))
    loss, gradients = as_by_hand(node, collaborating())
    added = [name for name in gradients if ".before." in name]
    assert len(added) == 4 * (K - 2) and all(gradients[name].abs().max() > 0 for name in added)
    assert not close(gradients, by_hand_from(node, collaborating(detach=False))[1]), "a control"
    alone, _ = by_hand_from(node, collaborating(reads_before=False))
    assert alone != pytest.approx(loss, rel=1e-3), "another"


def test_collaboration_begins_as_heads_that_answer_alone() -> None:
    """The phase before carries nothing: what is added is drawn by the seed, behind a matrix of zeros."""
    *_, node = nodes = program_nodes("imta")
    assert [n.phase.carry for n in nodes] == [0.0, "hidden"] and len(node.needs) == 1
    net = network("digits-cnn")
    left = redrawn(net, 5)
    weights = {name: tensor for part in ALL for name, tensor in inside(left).state(part).items()}
    begun, other = (
        Weights(net, seed, lambda _: weights, torch.device("cpu")).network(node.start, "hidden")
        for seed in (42, 43)
    )
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for answer, alone in zip(begun(x), left.eval()(x), strict=True):
        torch.testing.assert_close(answer, alone, rtol=1e-4, atol=1e-5)
    layers = [head.before.dense.weight for n in (begun, other) for head in inside(n).heads[1:]]
    assert len({tuple(layer.flatten().tolist()) for layer in layers}) == 2 * (K - 2)


@pytest.mark.parametrize("program", [STRATEGIES["cascade"](K), one_after_another()], ids=["all", "last"])
def test_a_cascade_is_heads_that_read_the_answer_before(program: Program) -> None:
    node = node_of(program)
    _, gradients = as_by_hand(node, cascade())
    matrices = [name for name in gradients if name.endswith("before.weight")]
    assert len(matrices) == (K - 2 if node.trained == heads(1, K - 1) else 1)
    assert all(gradients[name].abs().max() > 0 for name in matrices)


def test_a_cascade_that_is_not_one_is_noticed() -> None:
    """The controls: a gradient to the answer before, and heads that are not told it."""
    node = node_of(STRATEGIES["cascade"](K))
    loss, gradients = by_the_engine(node)
    value, heard = by_hand_from(node, cascade(detach=False))
    assert loss == pytest.approx(value, rel=1e-5) and not close(gradients, heard)
    assert by_hand_from(node, cascade(reads_before=False))[0] != pytest.approx(loss, rel=1e-3)


def test_a_cascade_begins_as_heads_that_answer_alone() -> None:
    """Its matrices are zeros, its heads are drawn as others, and its backbone is everybody's."""
    net = network("digits-cnn")
    programs = [STRATEGIES[name](K) for name in ("cascade", "baseline")]
    (backbone, node), (alone,) = (resolve(program, net, setting()).nodes for program in programs)
    assert backbone.key == alone.key
    plain = Phase("heads", heads(1, K - 1), node.terms)
    assert node.key != node_of((*programs[1], plain)).key
    weights = Weights(net, 42, lambda _: {}, torch.device("cpu"))
    drawn = {part: Source() for part in ALL}
    begun, usual = weights.network(drawn, "learned"), weights.network(drawn)
    added = dict(begun.named_parameters()).keys() - dict(usual.named_parameters()).keys()
    assert len(added) == K - 2
    assert all(
        torch.equal(t, usual.state_dict()[n]) for n, t in begun.state_dict().items() if n not in added
    )
    assert all(not t.any() for n, t in begun.named_parameters() if n in added)


WAYS: dict[str, tuple[Program, Loss]] = {
    "mixed": (STRATEGIES["mixed"](K), mixed),
    "self-distillation": (STRATEGIES["self-distillation"](K, features=0.0), self_distillation),
    "imta": (STRATEGIES["imta"](K, collaboration=False), imta),
    "exit-ensemble": (STRATEGIES["exit-ensemble"](K, features=0.0), exit_ensemble),
    "confidence-gated, soft": (STRATEGIES["confidence-gated"](K), confidence_gated),
    "confidence-gated, hard": (
        STRATEGIES["confidence-gated"](K, gate="hard", threshold=0.2),
        hard_gated,
    ),
    "boosted": (boosted_plainly(), boosted),
    "survivors": (STRATEGIES["survivors"](K, threshold=0.3), survivors),
}
HEADS = ("imta", "survivors")
"""Whose last step trains heads alone; that of the others trains the whole network."""


@pytest.mark.parametrize("name", WAYS)
def test_the_last_step_is_the_one_written_out(name: str) -> None:
    program, reference = WAYS[name]
    as_by_hand(node_of(program), on_logits(reference), whole=name not in HEADS)


@pytest.mark.parametrize("name", WAYS)
def test_another_loss_is_noticed(name: str) -> None:
    """The control: the sum of all cross-entropies trains the same parts otherwise; of survivors, all
    images at all exits."""
    node = node_of(WAYS[name][0])
    other = all_survive if name == "survivors" else every
    assert not close(by_the_engine(node)[1], by_hand(node, other)[1])


def added(tau: float, keep: float = 1.0) -> Run:
    """Exit 3 is learned, exits 1, 2 and 4 answer as they did before the step, in eval mode."""

    def run(net: ExitNetwork, pixels: Tensor, y: Tensor) -> Tensor:
        before, z = own_logits(copy.deepcopy(net).eval(), pixels), own_logits(net, pixels)
        remembered = torch.stack([kl(z[k], before[k], tau).mean() for k in (0, 1, 3)]).sum()
        return ce(z[2], y).mean() + keep * remembered

    return run


def test_an_exit_is_added_and_those_before_answer_as_they_did() -> None:
    node = node_of(STRATEGIES["sequential"](K))
    assert node.name == "exit 3" and node.trained == ALL
    _, gradients = as_by_hand(node, added(2.0))
    for control in (added(3.0), added(2.0, keep=0.0)):
        assert not close(gradients, by_hand_from(node, control)[1])


def test_the_final_exit_may_teach_as_it_was_before_heads_went_on() -> None:
    def stepped(name: Literal["live", "before"], taught: bool = True) -> tuple[float, Gradients]:
        """Of a final exit that has gone on; by the engine, or else as the source writes it."""
        node = node_of(STRATEGIES["imta"](K, collaboration=False, teacher=name))
        with applied(NUMERICS):
            trainee, passes, pixels, labels = first_step(node)
            target = own_logits(copy.deepcopy(trainee.net).eval(), pixels)[-1]
            with torch.no_grad():
                trainee.net.get_parameter("classifier.weight").mul_(0.5)
            if taught:
                answers = passes.answers(node, trainee.net, pixels)
                return gradients_of(trainee, loss_of(trainee, *answers, labels, None))
            z = own_logits(trainee.net, pixels)
            early = sum((0.9 * ce(e, labels) + 0.1 * kl(e, target, 1.0)).mean() for e in z[:-1])
            return gradients_of(trainee, early + ce(z[-1], labels).mean())

    (loss, gradients), (value, expected) = stepped("before"), stepped("before", taught=False)
    assert loss == pytest.approx(value, rel=1e-5) and close(gradients, expected)
    assert not close(stepped("live")[1], expected), "the control"
    check(STRATEGIES["imta"](K, teacher="before"), K)


def test_gradient_equilibrium_is_the_mean_of_the_exits_above() -> None:
    """Of each layer of the trunk: Σ ∂CE_k / (K - n + 1) over the exits k ≥ n that it serves."""
    node = node_of(STRATEGIES["gradient-equilibrium"](K))
    _, gradients = by_the_engine(node)
    alone = [by_hand(node, only(k))[1] for k in range(K)]
    net = network("digits-cnn")
    where = {id(p): part for part in ALL for p in inside(net).parameters_of(part)}
    parts = {name: where[id(p)] for name, p in net.named_parameters() if id(p) in where}
    expected = {}
    for name, part in parts.items():
        share = 1 if part.kind == "head" else K - part.index + 1
        expected[name] = torch.stack([each[name] for each in alone]).sum(0) / share
    assert close(gradients, expected)
    plain = {name: torch.stack([each[name] for each in alone]).sum(0) for name in parts}
    assert not close(gradients, plain), "the control: without it deep exits are heard by all"


def test_a_head_can_learn_without_the_trunk_hearing_it() -> None:
    """Heads on CE while the trunk hears the final exit alone, in one step."""
    stop = (heads(1, K - 1), 0.0)
    phase = Phase("together", ALL, tuple(CE(k) for k in range(1, K + 1)), backward=(stop,))
    node = node_of((phase,))
    _, gradients = by_the_engine(node)
    whole, last = by_hand(node, every)[1], by_hand(node, only(K - 1))[1]
    net = network("digits-cnn")
    own = {id(p) for k in range(1, K) for part in heads(k, k) for p in inside(net).parameters_of(part)}
    early = {name for name, p in net.named_parameters() if id(p) in own}
    expected = {name: (whole if name in early else last)[name] for name in whole}
    assert early and close(gradients, expected)
    assert not close(gradients, whole)


def test_a_head_that_is_not_heard_trains_nothing_below_it() -> None:
    phase = Phase("head", ALL, (CE(2),), backward=((heads(2, 2), 0.0),))
    assert phase.trained == heads(2, 2)


def test_gradients_that_go_on_as_they_are_change_no_key() -> None:
    plain = Phase("joint", ALL, (CE(1), CE(K)))
    same = Phase("joint", ALL, (CE(1), CE(K)), backward=((heads(1, 1), 1.0),))
    other = Phase("joint", ALL, (CE(1), CE(K)), backward=((heads(1, 1), 0.5),))
    weighed = Phase("joint", ALL, (CE(1), CE(K)), sample_weights=Unsolved())
    soft = Phase("joint", ALL, (CE(1), CE(K)), sample_weights=Unsolved(hard=False))
    keys = [node_of((phase,)).key for phase in (plain, same, other, weighed, soft)]
    assert keys[0] == keys[1] and len(set(keys)) == 4


def test_teachers_are_told_apart_by_keys() -> None:
    def key(*terms: KD | MSE, teacher: str = LIVE) -> str:
        start = STRATEGIES["baseline"](K)
        return node_of((*start, Phase("next", ALL, (CE(K), *terms), teacher=teacher))).key

    keys = [
        key(KD(1, 4)),
        key(KD(1, 4), teacher="backbone"),
        key(KD(1, (4,))),
        key(KD(1, (3, 4))),
        key(MSE(1, (3, 4))),
        key(MSE(1, 4)),
    ]
    assert len(set(keys)) == len(keys)


def test_what_an_image_counts_for() -> None:
    z = [torch.tensor([[4.0, 0.0], [0.0, 4.0], [0.1, 0.0]]) for _ in range(3)]
    labels = torch.zeros(3, dtype=torch.int64)
    hard = sample_weights(Unsolved(threshold=0.6), z, labels)
    assert hard.tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 1]]
    p = z[0].softmax(1)[:, 0]
    soft = sample_weights(Unsolved(hard=False), z, labels)
    assert torch.allclose(soft, torch.stack([torch.ones(3), 1 - p, (1 - p) ** 2], dim=1))
    surviving = sample_weights(Survivors(threshold=0.9, width=0.1), z, labels)
    assert surviving[0, 2] < surviving[0, 1] < 1 and surviving[2, 1] > 0.9, "the unsure ones go on"
    assert surviving[0].tolist() == surviving[1].tolist(), "right or wrong, an exit does not know"


def test_validation_is_weighed_as_training_is() -> None:
    """The loss by which epochs are selected is the phase's own."""
    nodes = program_nodes("survivors")
    assert nodes[-1].phase.sample_weights == Survivors()
    z = {k: torch.randn(5, 3, generator=torch.Generator().manual_seed(k)) for k in range(1, 4)}
    teacher, labels = {4: torch.randn(5, 3)}, torch.tensor([0, 1, 2, 0, 1])
    weighed = objective(nodes[-1].terms, z, teacher, labels, LossContext(weights=Survivors(0.4)))
    plain = objective(nodes[-1].terms, z, teacher, labels)
    assert weighed < plain


def test_exits_that_carry_answers_scale_gradients_as_equilibrium_does() -> None:
    (phase,), (plain,) = STRATEGIES["boosted"](K), STRATEGIES["gradient-equilibrium"](K)
    assert replace(phase, carry=0.0, name=plain.name) == plain and phase.carry == 0.5


CANNOT_CARRY: dict[str, Program] = {
    "an exit left out": (Phase("a", ALL, (CE(1), CE(3)), carry=0.5),),
    "twice the answer": (Phase("a", ALL, (CE(1),), carry=2.0),),
    "another word": (Phase("a", ALL, (CE(1),), carry="all"),),  # type: ignore[arg-type]
    "an exit left out, learned": (Phase("a", ALL, (CE(1), CE(3)), carry="learned"),),
    "early exits left out": (Phase("a", ALL, (CE(1), CE(K)), carry=0.5),),
    "no more": (Phase("a", ALL, (CE(1),), carry="learned"), Phase("b", ALL, (CE(1),))),
    "later": (Phase("a", ALL, (CE(K),)), Phase("b", ALL, (CE(1),), carry=0.5)),
    "a frozen teacher, learned": (
        Phase("a", ALL, (CE(1), CE(2)), carry="learned"),
        Phase("b", ALL, (CE(1), KD(1, 2)), teacher="a", carry="learned"),
    ),
    "later, of the same exit": (Phase("a", ALL, (CE(1),)), Phase("b", ALL, (CE(1),), carry=0.5)),
    "a frozen teacher": (
        Phase("a", ALL, (CE(1), CE(2)), carry=0.5),
        Phase("b", ALL, (CE(1), KD(2, 2)), teacher="a", carry=0.5),
    ),
}


@pytest.mark.parametrize("mistake", CANNOT_CARRY)
def test_programs_that_cannot_carry_answers(mistake: str, snapshot: SnapshotAssertion) -> None:
    assert refusal(check, CANNOT_CARRY[mistake], K) == snapshot


def test_a_cascade_may_learn_from_the_final_exit() -> None:
    """Which answers alone, whether it trains or teaches."""
    first = Phase("backbone", segments(1, K) | heads(K, K), (CE(K),))
    taught = Phase("heads", heads(1, 2), (KD(1, K), KD(2, K)), teacher="backbone", carry="learned")
    joint = Phase("joint", ALL, (CE(1), CE(2), CE(K)), carry="learned")
    check((first, taught), K)
    check((Phase("alone", ALL, (CE(1), CE(2))), joint), K)
    check((joint,), K)


def test_a_cascade_without_a_final_exit_is_refused(snapshot: SnapshotAssertion) -> None:
    (phase,) = STRATEGIES["cascade"](K)[1:]
    assert refusal(node_of, (phase,)) == snapshot
