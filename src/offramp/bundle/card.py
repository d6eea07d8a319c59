"""A bundle's card: what the network is, how it was trained, what it loses, what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from offramp.bundle.parity import TOLERANCE, Likeness, Parity
from offramp.escape import markdown as escape
from offramp.policy.calibration import Chosen
from offramp.policy.evaluate import Evaluation
from offramp.policy.policy import Policy
from offramp.store.manifest import Manifest
from offramp.study.trained import Trained

INTENDED = (
    "Inputs like the calibration images. Accuracy, savings and guarantees do not carry over to another "
    "camera, population or share of classes; there, train and calibrate anew."
)


def card(
    manifest: Manifest,
    trained: Trained,
    policy: Policy,
    tested: Evaluation,
    own_trunks: bool,
    flattened: Sequence[int],
    macs: Mapping[int, int],
) -> dict[str, Any]:
    """Everything but the check and the times, in types of JSON. own_trunks: whether exits run trunks of
    their own.  flattened: exits whose heads take images of one size only.  macs: of an image that leaves
    at each exit that the bundle has."""
    costs, made = trained.costs, policy.calibration
    exits = [
        {
            "exit": number,
            "place": manifest.places[number - 1],
            "in_bundle": number in macs,
            "threshold": policy.thresholds[i],
            "accuracy": tested.exits[i].accuracy_all,
            "share_leaving": tested.exits[i].share,
            "accuracy_of_leaving": tested.exits[i].accuracy,
            "macs": macs.get(number),
        }
        for i, number in enumerate(policy.exits)
    ]
    return {
        "trial": trained.id,
        "trial_hash": trained.hash,
        "training": {
            "strategy": manifest.strategy,
            "program": manifest.program,
            "options": manifest.options,
            "phases": [phase.name for phase in manifest.phases],
            "seeds": [manifest.seed],
            "recipe": manifest.recipe.as_json(),
            "made_with": manifest.provenance.as_json(),
        },
        "network": {
            **{k: v for k, v in manifest.network.as_json().items() if k != "type"},
            "input_shape": list(manifest.input_shape),
            "classes": len(trained.classes),
            "own_trunks": own_trunks,
            "heads_that_flatten": list(flattened),
        },
        "data": manifest.data.as_json(),
        "exits": exits,
        "test": {
            "images": tested.images,
            "accuracy": asdict(tested.policy),
            "full_accuracy": asdict(tested.full),
            "accuracy_loss": asdict(tested.loss),
            "mean_macs": tested.macs.mean,
        },
        "plain_macs": trained.plain_macs,
        "full_macs": costs.full,
        "calibration": {
            "score": policy.score,
            "target": made.target_json,
            "chosen": made.chosen_json,
            "statement": made.statement,
            "device": None if made.chosen is None else made.chosen.device,
            "promised": None if made.chosen is None else promised(made.chosen),
        },
        "intended": INTENDED,
    }


def promised(chosen: Chosen) -> str | None:
    """The time of an image on the device that a policy was solved for, in words; None where there is no
    such device."""
    if chosen.device is None:
        return None
    late, mean = chosen.p95_seconds, chosen.mean_seconds
    if late is not None:
        return f"95 of 100 images within {1000 * late:.3g} ms"
    return None if mean is None else f"{1000 * mean:.3g} ms an image on average"


def with_check(made: dict[str, Any], parity: Parity | Likeness | None) -> dict[str, Any]:
    """The card with the comparison to PyTorch, or of int8 to what was calibrated; None where it was
    left out."""
    found = None if parity is None else {**asdict(parity), "tolerance": TOLERANCE}
    return {**made, "check": found}


def with_int8(
    made: dict[str, Any],
    before: Mapping[str, Any],
    sizes: tuple[int, int],
    lost: float,
    allowed: float,
) -> dict[str, Any]:
    """The card of an int8 bundle, with float32 beside it. before: the card of the same bundle in
    float32.  sizes: bytes of all stages, float32's first.  lost, allowed: accuracy on calibration."""
    beside = [
        {
            "precision": one["precision"],
            "accuracy": one["test"]["accuracy"]["value"],
            "full_accuracy": one["test"]["full_accuracy"]["value"],
            "mean_macs": one["test"]["mean_macs"],
            "stages": sum(exit["in_bundle"] for exit in one["exits"]),
            "bytes": size,
            "mean_milliseconds_batch_1": one["latency"].get("mean_milliseconds_batch_1"),
        }
        for one, size in zip((before, made), sizes, strict=True)
    ]
    return {**made, "int8": {"beside": beside, "lost": lost, "allowed": allowed}}


def with_latency(made: dict[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """The card with what the stages take. measured: of `runtime.measure`, or a reason.

    The mean of a batch of one image follows from the stages and the shares that reach them on test;
    larger batches shrink from stage to stage, so nothing is added up for them.
    """
    if "reason" in measured:
        return {**made, "latency": {"reason": measured["reason"]}}
    reached, left = {}, 1.0
    for exit in made["exits"]:
        if exit["in_bundle"]:
            reached[exit["exit"]] = left
            left -= exit["share_leaving"]
    single = [row for row in measured["stages"] if row["batch"] == 1]
    mean = sum(reached[row["exit"]] * row["p50"] for row in single)
    return {**made, "latency": {**measured, "mean_milliseconds_batch_1": mean}}


def markdown(made: Mapping[str, Any]) -> str:
    """The card to read."""
    text = resources.files(__package__).joinpath("card.md.jinja").read_text(encoding="utf-8")
    template = Environment(
        trim_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        finalize=lambda value: escape(str(value)),
    )
    images = made["data"].get("provenance", {}).get("images", {})
    counts = ", ".join(f"{number:,} {split}" for split, number in images.items())
    return template.from_string(text).render(made, counts=counts)
