"""How the runs were made, and where that departs from the paper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType

from offramp.data_spec import SPLITS
from offramp.paper.recipes import CLASSES, RECIPES, SEEDS, PaperRecipe
from offramp.recipe import Recipe
from offramp.report.evidence import Evidence
from offramp.report.machines import ran
from offramp.report.model import Detail
from offramp.store.manifest import BITS, ExecutionRecord, NumericsRecord, RecipeRecord
from offramp.store.record import TrialRecord, machine_kind
from offramp.units import counted

# The paper's section 5.3, by data set: epochs of a phase, and how its images are augmented.
EPOCHS: Mapping[str, int] = MappingProxyType({r.data: r.epochs for r in RECIPES.values()})
AUGMENTED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {r.data: r.augment for r in RECIPES.values()}
)
SETTINGS = (
    ("optimizer", "optimizer"),
    ("learning_rate", "learning rate"),
    ("batch_size", "batches of"),
    ("schedule", "schedule"),
    ("weight_decay", "weight decay"),
)


def facts(evidence: Evidence) -> list[Detail]:
    """What there is to know, a fact a line; empty ones are left out."""
    trials = evidence.trials
    found = [
        Detail("Study", _each(t.manifest.study for t in trials if t.manifest.study)),
        Detail("Networks and data", [_place(runs.trials) for runs in evidence.runs]),
        Detail("Strategies", [", ".join(evidence.strategies)]),
        Detail("Seeds", [", ".join(map(str, sorted({t.seed for t in trials}))), *_added(evidence)]),
        Detail("Training", _by_pair(evidence, _training)),
        Detail("Settings", searched(evidence)),
        Detail("Execution", _each(_execution(t.manifest.execution) for t in trials)),
        Detail("Arithmetic", _each(_numerics(t.manifest.numerics) for t in trials)),
        Detail("Machine", ran(trials) or _each(machine_kind(t.manifest.provenance) for t in trials)),
        Detail("Versions", [_version(trials, name) for name in ("offramp", "python", *BITS[:-1])]),
        Detail("Revision of the code", _known(trials, "git")),
        Detail("Finished", [_span(_known(trials, "finished"))]),
        Detail("Checked", _checked(evidence)),
        Detail("Departs from the paper", deviations(evidence)),
    ]
    return [Detail(f.name, values) for f in found if (values := [v for v in f.values if v])]


def searched(evidence: Evidence) -> list[str]:
    """How settings were found, and that strategies are not compared at the same ones, where so."""
    found = []
    for runs in evidence.runs:
        own: dict[str, str] = {}
        for trial in runs.trials:
            said = trial.manifest.search
            if said is None:
                continue
            words = ", ".join(f"{_title(key)} {_text(value)}" for key, value in said.found.items())
            ranges = ", ".join(f"{_title(key)} in {text}" for key, text in said.over.items())
            how = f"searched on validation, {ranges}, {said.trials} tried"
            if said.per is None:
                own[f"{how}: {words} for all strategies"] = ""
            else:
                own[trial.strategy] = f"{words} ({how})"
        each = "; ".join(f"{label} {text}" if text else label for label, text in own.items())
        if any(own.values()):
            each = f"each strategy has its own: {each}"
        found += [f"{runs.where}: {each}"] if own else []
    return found


def _title(key: str) -> str:
    return key.removeprefix("recipe.").replace("_", " ")


def _checked(evidence: Evidence) -> list[str]:
    """Whether the numbers are those that were recorded. What fails the first of these is not here."""
    files = "every file has the SHA-256 that its manifest names"
    return [
        files if evidence.disagreements else f"{files}, and every accuracy is what its logits give",
        *evidence.disagreements,
    ]


def _added(evidence: Evidence) -> list[str]:
    """How seeds came to be as many as they are."""
    found = []
    for runs in evidence.runs:
        looks = runs.looks
        if looks is not None:
            counts = ", ".join(map(str, looks.counts))
            found.append(
                f"{runs.where}: added until pairs were decided, with looks at {counts} seeds that were "
                "fixed before the first; p and intervals of pairs are adjusted for them"
            )
        found += [f"{runs.where}: {text}" for text in runs.added]
    return found


def deviations(evidence: Evidence) -> list[str]:
    """Where these runs are not what the paper did, and where they are not all alike."""
    found = []
    for runs in evidence.runs:
        found += [f"{runs.where}: {text}" for text in _unlike(runs.model, runs.trials)]
    derived = [t for t in evidence.trials if t.manifest.execution.mode == "derived"]
    if derived:
        some = "" if len(derived) == len(evidence.trials) else "some trials: "
        found.append(
            f"{some or 'everywhere: '}derived execution, where phases are shared, fused or read from a "
            "cache: the same bits as plain, other times, memory and power (the paper runs every phase)"
        )
    apart = [t for t in evidence.trials if not _validates_on_test(t)]
    if apart:
        some = "everywhere" if len(apart) == len(evidence.trials) else "some trials"
        found.append(
            f"{some}: validation and calibration images are held out of training images, and test "
            "images are used once (the paper chooses and reports on the same images)"
        )
    for name in BITS:
        values = _known(evidence.trials, name)
        if len(values) > 1:
            found.append(f"made with more than one {name} ({', '.join(values)}), so bits may differ")
    return found


def _unlike(model: str, trials: Sequence[TrialRecord]) -> list[str]:
    """Where the trials of a network on a data set are not what the paper did."""
    name = trials[0].manifest.data.name  # the label of a trial may add augmentation
    found = []
    seeds = len({t.seed for t in trials})
    if seeds != len(SEEDS):
        found.append(f"{counted(seeds, 'seed')} (the paper: {len(SEEDS)})")
    images = _images(trials[0])
    if images and images["used"] < images["available"]:
        found.append(
            f"{images['used']:,} of the {images['available']:,} training images, those held out included"
        )
    if name not in EPOCHS:
        return [*found, "a data set that the paper does not have"]
    found += _start(trials[0], name)
    epochs = sorted({t.manifest.recipe.epochs for t in trials})
    if epochs != [EPOCHS[name]]:
        words = " or ".join(map(str, epochs))
        found.append(
            f"{words} {'epoch' if epochs == [1] else 'epochs'} a phase (the paper: {EPOCHS[name]})"
        )
    augment = trials[0].manifest.data.augment  # equal in all: their label has it
    done = set() if augment is None else augment.as_json().keys()
    if done - {"label", "views"} != set(AUGMENTED[name]):
        theirs = " and ".join(AUGMENTED[name]) or "none"
        found.append(f"augmentation {augment.label if augment else 'none'} (the paper: {theirs})")
    recipe = RECIPES.get(f"{model}-{name}")
    if recipe is not None:
        return [*found, *_recipe(trials, recipe, SETTINGS, "the paper")]
    found.append("a network that the paper does not train on these data")
    for other in (r for r in RECIPES.values() if r.backbone == model):
        return [*found, *_recipe(trials, other, SETTINGS[:2], f"the paper on {other.data}")]
    return found


def _start(trial: TrialRecord, name: str) -> list[str]:
    """Other classes and initial weights than the paper's on data of this name."""
    found = []
    manifest = trial.manifest
    classes = len(manifest.classes)
    if classes != CLASSES[name]:
        found.append(f"{classes} classes (the paper: {CLASSES[name]})")
    given = manifest.pretrained
    paper = {r.weights is not None for r in RECIPES.values() if r.data == name}
    if given not in paper:
        words = {True: "given weights", False: "random weights"}
        found.append(f"networks start from {words[given]} (the paper: from {words[not given]})")
    return found


def _recipe(
    trials: Sequence[TrialRecord], paper: PaperRecipe, settings: Iterable[tuple[str, str]], where: str
) -> list[str]:
    """Other settings than the paper's. where: what to call those."""
    found = []
    for key, title in settings:
        wanted = getattr(paper, key)
        values = sorted({getattr(t.manifest.recipe, key) for t in trials} - {wanted})
        if values:
            words = " or ".join(map(_text, values))
            found.append(f"{title} {words} ({where}: {_text(wanted)})")
    return found


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _place(trials: Sequence[TrialRecord]) -> str:
    """A network on a data set: where its exits are, how many images."""
    first = max(trials, key=lambda t: len(t.exits))
    *early, _ = first.manifest.places
    exits = f"exits after {', '.join(early)} and the final one" if early else "the final exit alone"
    counts = first.manifest.data.provenance.images
    images = ", ".join(f"{counts[s]:,} {s}" for s in SPLITS if s in counts)
    macs = f"{first.manifest.backbone_macs / 1e6:,.1f} M MACs"
    end = f"; images: {images}" if images else ""
    return f"{first.model} ({macs}) on {first.data}: {exits}{end}"


def _images(trial: TrialRecord) -> dict[str, int] | None:
    """Training images that were used, held out ones included, and that there are."""
    provenance = trial.manifest.data.provenance
    images, available = provenance.images, provenance.available
    if "train" not in available or "train" not in images:
        return None
    taken = ("train", "calibration", *([] if _validates_on_test(trial) else ["validation"]))
    used = sum(images.get(split, 0) for split in taken)
    return {"used": used, "available": available["train"]}


def _validates_on_test(trial: TrialRecord) -> bool:
    """Whether the validation split is the test split (`data.validation: test`)."""
    splits = trial.manifest.data.splits
    return splits["validation"] == splits["test"]


def _by_pair(evidence: Evidence, describe: Callable[[TrialRecord], str]) -> list[str]:
    """A description for each pair, or one where all are alike."""
    words = {runs.where: _each(map(describe, runs.trials)) for runs in evidence.runs}
    if len({tuple(texts) for texts in words.values()}) <= 1:
        return next(iter(words.values()), [])
    return [f"{where}: {text}" for where, texts in words.items() for text in texts]


def _training(trial: TrialRecord) -> str:
    recipe = trial.manifest.recipe
    rate = f"{recipe.optimizer} at {recipe.learning_rate:g}"
    if recipe.optimizer == "sgd":
        rate += f" (momentum {recipe.momentum:g}{', Nesterov' if recipe.nesterov else ''})"
    words = [f"{counted(recipe.epochs, 'epoch')} a phase", rate, f"batches of {recipe.batch_size}"]
    words.append(f"{recipe.schedule} schedule")
    if recipe.warmup_epochs:
        many = "epoch" if recipe.warmup_epochs == 1 else "epochs"
        words.append(f"{recipe.warmup_epochs:g} {many} of warm-up")
    if recipe.weight_decay:
        words.append(f"weight decay {recipe.weight_decay:g}")
    if recipe.patience is not None:
        words.append(
            f"stopped after {counted(recipe.patience, 'epoch')} without a lower validation loss"
        )
    words += _others(recipe)
    return ", ".join(words)


def _others(recipe: RecipeRecord) -> Iterator[str]:
    """Settings beyond those that every trial tells of, where they are not at their defaults."""
    own, others = RecipeRecord.model_fields, recipe.model_extra or {}
    for field in fields(Recipe):
        value = others.get(field.name, field.default)
        value = tuple(value) if isinstance(value, list) else value
        if field.name not in own and value != field.default:
            said = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            yield f"{field.name.replace('_', ' ')} {said}"


def _execution(execution: ExecutionRecord) -> str:
    if execution.mode == "plain":
        return "plain: each phase alone, as the paper does"
    how = {"cache": "frozen features cached", "fuse": "phases fused", "share": "phases shared"}
    on = [words for key, words in how.items() if getattr(execution, key)]
    return f"derived{': ' if on else ''}{', '.join(on)}; the same bits as plain, other times"


def _numerics(numerics: NumericsRecord) -> str:
    threads = f", {counted(numerics.threads, 'thread')}" if numerics.threads else ""
    return f"profile {numerics.name}, version {numerics.version}: {numerics.precision}{threads}"


def _version(trials: Iterable[TrialRecord], name: str) -> str:
    known = _known(trials, name)
    return f"{name} {', '.join(known)}" if known else ""


def _known(trials: Iterable[TrialRecord], name: str) -> list[str]:
    found = [getattr(t.manifest.provenance, name) for t in trials]
    return sorted({str(value) for value in found if value is not None})


def _span(times: Sequence[str]) -> str:
    if not times:
        return ""
    days = sorted({times[0][:10], times[-1][:10]})
    return " to ".join(days)


def _each(texts: Iterable[str]) -> list[str]:
    return sorted(set(texts))
