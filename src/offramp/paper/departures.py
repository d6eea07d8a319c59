"""Where runs are not what the paper did (its section 5.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from offramp.paper.recipes import CLASSES, RECIPES, SEEDS, PaperRecipe
from offramp.report.evidence import Evidence
from offramp.report.page.how import provenance_values, setting_text
from offramp.store.manifest import BITS
from offramp.store.record import TrialRecord
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


def departures(evidence: Evidence) -> list[str]:
    """Where these runs are not what the paper did, and where they are not all alike."""
    sentences = []
    for runs in evidence.runs:
        sentences += [f"{runs.where}: {text}" for text in _unlike(runs.model, runs.trials)]
    derived = [t for t in evidence.trials if t.manifest.execution.mode == "derived"]
    if derived:
        some = "" if len(derived) == len(evidence.trials) else "some trials: "
        sentences.append(
            f"{some or 'everywhere: '}derived execution, where phases are shared, fused or read from a "
            "cache: the same bits as plain, other times, memory and power (the paper runs every phase)"
        )
    apart = [t for t in evidence.trials if not _validates_on_test(t)]
    if apart:
        some = "everywhere" if len(apart) == len(evidence.trials) else "some trials"
        sentences.append(
            f"{some}: validation and calibration images are held out of training images, and test "
            "images are used once (the paper chooses and reports on the same images)"
        )
    for name in BITS:
        values = provenance_values(evidence.trials, name)
        if len(values) > 1:
            sentences.append(f"made with more than one {name} ({', '.join(values)}), so bits may differ")
    return sentences


def _unlike(model: str, trials: Sequence[TrialRecord]) -> list[str]:
    """Where the trials of a network on a data set are not what the paper did."""
    name = trials[0].manifest.data.name  # the label of a trial may add augmentation
    clauses = []
    seeds = len({t.seed for t in trials})
    if seeds != len(SEEDS):
        clauses.append(f"{counted(seeds, 'seed')} (the paper: {len(SEEDS)})")
    images = _images(trials[0])
    if images and images["used"] < images["available"]:
        clauses.append(
            f"{images['used']:,} of the {images['available']:,} training images, those held out included"
        )
    if name not in EPOCHS:
        return [*clauses, "a data set that the paper does not have"]
    clauses += _start(trials[0], name)
    epochs = sorted({t.manifest.recipe.epochs for t in trials})
    if epochs != [EPOCHS[name]]:
        words = " or ".join(map(str, epochs))
        clauses.append(
            f"{words} {'epoch' if epochs == [1] else 'epochs'} a phase (the paper: {EPOCHS[name]})"
        )
    augment = trials[0].manifest.data.augment  # equal in all: their label has it
    done = set() if augment is None else augment.as_json().keys()
    if done - {"label", "views"} != set(AUGMENTED[name]):
        theirs = " and ".join(AUGMENTED[name]) or "none"
        clauses.append(f"augmentation {augment.label if augment else 'none'} (the paper: {theirs})")
    recipe = RECIPES.get(f"{model}-{name}")
    if recipe is not None:
        return [*clauses, *_recipe(trials, recipe, SETTINGS, "the paper")]
    clauses.append("a network that the paper does not train on these data")
    for other in (r for r in RECIPES.values() if r.backbone == model):
        return [*clauses, *_recipe(trials, other, SETTINGS[:2], f"the paper on {other.data}")]
    return clauses


def _start(trial: TrialRecord, name: str) -> list[str]:
    """Other classes and initial weights than the paper's on data of this name."""
    clauses = []
    manifest = trial.manifest
    classes = len(manifest.classes)
    if classes != CLASSES[name]:
        clauses.append(f"{classes} classes (the paper: {CLASSES[name]})")
    pretrained = manifest.pretrained
    paper = {r.weights is not None for r in RECIPES.values() if r.data == name}
    if pretrained not in paper:
        words = {True: "given weights", False: "random weights"}
        clauses.append(
            f"networks start from {words[pretrained]} (the paper: from {words[not pretrained]})"
        )
    return clauses


def _recipe(
    trials: Sequence[TrialRecord], paper: PaperRecipe, settings: Iterable[tuple[str, str]], where: str
) -> list[str]:
    """Other settings than the paper's. where: what to call those."""
    clauses = []
    for key, title in settings:
        setting = getattr(paper, key)
        values = sorted({getattr(t.manifest.recipe, key) for t in trials} - {setting})
        if values:
            words = " or ".join(map(setting_text, values))
            clauses.append(f"{title} {words} ({where}: {setting_text(setting)})")
    return clauses


def _images(trial: TrialRecord) -> dict[str, int] | None:
    """Training images that were used, held out ones included, and that there are."""
    provenance = trial.manifest.data.provenance
    images, available = provenance.images, provenance.available
    if "train" not in available or "train" not in images:
        return None
    splits = ("train", "calibration", *([] if _validates_on_test(trial) else ["validation"]))
    used = sum(images.get(split, 0) for split in splits)
    return {"used": used, "available": available["train"]}


def _validates_on_test(trial: TrialRecord) -> bool:
    """Whether the validation split is the test split (`data.validation: test`)."""
    splits = trial.manifest.data.splits
    return splits["validation"] == splits["test"]
