"""How the runs were made, and where that departs from the publication."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from importlib import import_module

from offramp.data_spec import SPLITS
from offramp.recipe import Recipe
from offramp.report.advice import listed
from offramp.report.evidence import Evidence
from offramp.report.model import RunDetail
from offramp.report.registry import publication
from offramp.report.select import ran
from offramp.store.manifest import BITS, ExecutionRecord, NumericsRecord, RecipeRecord
from offramp.store.record import TrialRecord, machine_kind
from offramp.units import counted, noun


def facts(evidence: Evidence) -> list[RunDetail]:
    """What there is to know, a fact a line; empty ones are left out."""
    trials = evidence.trials
    details = [
        RunDetail("Study", _each(t.manifest.study for t in trials if t.manifest.study)),
        RunDetail("Networks and data", [_place(runs.trials) for runs in evidence.runs]),
        RunDetail("Labels", _labels(evidence)),
        RunDetail("Strategies", [", ".join(evidence.strategies)]),
        RunDetail("Seeds", [", ".join(map(str, sorted({t.seed for t in trials}))), *_added(evidence)]),
        RunDetail("Averages", averages(evidence)),
        RunDetail("Training", _by_pair(evidence, _training)),
        RunDetail("In the figure budget alone", _shorter(evidence)),
        RunDetail("Settings", searched(evidence)),
        RunDetail("Execution", _each(_execution(t.manifest.execution) for t in trials)),
        RunDetail("Arithmetic", _each(_numerics(t.manifest.numerics) for t in trials)),
        RunDetail("Machine", ran(trials) or _each(machine_kind(t.manifest.provenance) for t in trials)),
        RunDetail("Versions", [_version(trials, name) for name in ("offramp", "python", *BITS[:-1])]),
        RunDetail("Revision of the code", provenance_values(trials, "git")),
        RunDetail("Finished", [_span(provenance_values(trials, "finished"))]),
        RunDetail("Checked", _checked(evidence)),
        RunDetail("Departs from the paper", departures(evidence)),
    ]
    return [RunDetail(f.name, values) for f in details if (values := [v for v in f.values if v])]


def _labels(evidence: Evidence) -> list[str]:
    """Where images have several labels, what words then mean."""
    return [
        f"{runs.where}: several labels an image; accuracy is the share of images all of whose labels "
        "are right, confidence the probability of the least sure one, cross-entropy the mean over them"
        for runs in evidence.runs
        if runs.several
    ]


def _shorter(evidence: Evidence) -> list[str]:
    """The trials that differ from the compared ones in how many epochs they trained for."""
    epochs = [each.trials[0].manifest.recipe.epochs for each in evidence.budgets]
    return [
        f"{counted(len(each.trials), 'trial')} of {counted(number, 'epoch')}"
        for each, number in zip(evidence.budgets, epochs, strict=True)
    ]


def departures(evidence: Evidence) -> list[str]:
    """Where these runs are not as the publication's."""
    place = publication().departures
    if not place:
        return []
    module, _, name = place.partition(":")
    sentences: list[str] = vars(import_module(module))[name](evidence)
    return sentences


def averages(evidence: Evidence) -> list[str]:
    """What differs between the seeds, so that means and p are over it, and what they are not over."""
    sentences = {}
    for runs in evidence.runs:
        records = [t.manifest for t in runs.trials]
        seeds = len({t.seed for t in runs.trials})
        splits = len({tuple(m.data.splits.values()) for m in records}) > 1
        search = {None if m.search is None else m.search.per or "all" for m in records}
        over = ["initial weights", f"the order of {runs.noun}s", *(["the splits"] if splits else [])]
        over += [] if runs.same_images else [f"the test {runs.noun}s, some of which several seeds have"]
        alone = f" and over the test {runs.noun}s, which all share" if runs.same_images else ""
        how = "the same for all strategies, " + (
            "searched together" if search - {None} else "not searched"
        )
        how = "searched once for each strategy" if "strategy" in search else how
        fixed = [*([] if splits else ["splits (one draw)"]), f"settings ({how})"]
        text = f"over {counted(seeds, 'seed')} ({listed(over)}){alone}; not over {listed(fixed)}"
        sentences[f"{runs.where}: {text}"] = text
    short = list(dict.fromkeys(sentences.values()))
    return short if len(short) == 1 else list(sentences)


def searched(evidence: Evidence) -> list[str]:
    """How settings were found, and that strategies are not compared at the same ones, where so."""
    sentences = []
    for runs in evidence.runs:
        own: dict[str, str] = {}
        for trial in runs.trials:
            search = trial.manifest.search
            if search is None:
                continue
            words = ", ".join(
                f"{_title(key)} {setting_text(value)}" for key, value in search.found.items()
            )
            ranges = ", ".join(f"{_title(key)} in {text}" for key, text in search.over.items())
            how = f"searched on validation, {ranges}, {search.trials} tried"
            if search.per is None:
                own[f"{how}: {words} for all strategies"] = ""
            else:
                own[trial.strategy] = f"{words} ({how})"
        each = "; ".join(f"{label} {text}" if text else label for label, text in own.items())
        if any(own.values()):
            each = f"each strategy has its own: {each}"
        sentences += [f"{runs.where}: {each}"] if own else []
    return sentences


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
    sentences = []
    for runs in evidence.runs:
        looks = runs.looks
        if looks is not None:
            counts = ", ".join(map(str, looks.counts))
            sentences.append(
                f"{runs.where}: added until pairs were decided, with looks at {counts} seeds that were "
                "fixed before the first; p and intervals of pairs are adjusted for them"
            )
        sentences += [f"{runs.where}: {text}" for text in runs.added]
    return sentences


def setting_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _place(trials: Sequence[TrialRecord]) -> str:
    """A network on a data set: where its exits are, how many images."""
    first = max(trials, key=lambda t: len(t.exits))
    *early, _ = first.manifest.places
    exits = f"exits after {', '.join(early)} and the final one" if early else "the final exit alone"
    counts = first.manifest.data.provenance.images
    images = ", ".join(f"{counts[s]:,} {s}" for s in SPLITS if s in counts)
    macs = f"{first.manifest.backbone_macs / 1e6:,.1f} M MACs"
    end = f"; {noun(first.manifest.input_shape)}s: {images}" if images else ""
    return f"{first.model} ({macs}) on {first.data}: {exits}{end}"


def _by_pair(evidence: Evidence, describe: Callable[[TrialRecord], str]) -> list[str]:
    """A description for each pair, or one where all are alike."""
    words = {runs.where: _each(map(describe, runs.trials)) for runs in evidence.runs}
    if len({tuple(texts) for texts in words.values()}) <= 1:
        return next(iter(words.values()), [])
    return [f"{where}: {text}" for where, texts in words.items() for text in texts]


def _training(trial: TrialRecord) -> str:
    if trial.manifest.adopted:
        return "adopted with its weights: how they came about is not known here"
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
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            yield f"{field.name.replace('_', ' ')} {text}"


def _execution(execution: ExecutionRecord) -> str:
    if execution.mode == "plain":
        return "plain: each phase alone, as the paper does"
    how = {"cache": "frozen features cached", "fuse": "phases fused", "share": "phases shared"}
    on = [words for key, words in how.items() if getattr(execution, key)]
    return f"derived{': ' if on else ''}{', '.join(on)}; the same bits as plain, other times"


def _numerics(numerics: NumericsRecord) -> str:
    return f"profile {numerics.name}, version {numerics.version}: {numerics.words}"


def _version(trials: Iterable[TrialRecord], name: str) -> str:
    versions = provenance_values(trials, name)
    return f"{name} {', '.join(versions)}" if versions else ""


def provenance_values(trials: Iterable[TrialRecord], name: str) -> list[str]:
    values = [getattr(t.manifest.provenance, name) for t in trials]
    return sorted({str(value) for value in values if value is not None})


def _span(times: Sequence[str]) -> str:
    if not times:
        return ""
    days = sorted({times[0][:10], times[-1][:10]})
    return " to ".join(days)


def _each(texts: Iterable[str]) -> list[str]:
    return sorted(set(texts))
