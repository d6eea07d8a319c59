"""A bundle's card: what the network is, how it was trained, what it loses, what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from offramp.bundle.parity import TOLERANCE, Parity
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
) -> dict[str, Any]:
    """Everything but the check and the times, in types of JSON. own_trunks: whether exits run trunks of
    their own.  flattened: exits whose heads take images of one size only."""
    costs, made = trained.costs, policy.calibration
    accuracy = manifest.metrics["test"].accuracy
    spent = policy.macs(costs)
    exits = [
        {
            "exit": number,
            "place": manifest.places[number - 1],
            "in_bundle": i in policy.active,
            "threshold": policy.thresholds[i],
            "accuracy": accuracy[i],
            "share_leaving": tested.exits[i].share,
            "accuracy_of_leaving": tested.exits[i].accuracy,
            "macs": spent[i] if i in policy.active else None,
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
            "made_with": manifest.provenance,
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
            "target": made.target,
            "chosen": made.chosen,
            "statement": made.statement,
        },
        "intended": INTENDED,
    }


def with_check(made: dict[str, Any], parity: Parity | None) -> dict[str, Any]:
    """The card with the comparison to PyTorch; None where it was left out."""
    found = None if parity is None else {**asdict(parity), "tolerance": TOLERANCE}
    return {**made, "check": found}


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
    training, network, data, test = (made[k] for k in ("training", "network", "data", "test"))
    seeds = ", ".join(map(str, training["seeds"]))
    recipe = training["recipe"]
    size = "×".join(map(str, network["input_shape"]))
    saved = 1 - test["mean_macs"] / made["plain_macs"]
    lines = [
        f"# {network['backbone']} with early exits, on {data['name']}",
        "",
        f"Trial `{made['trial']}`, strategy **{training['strategy']}**, seed {seeds}.",
        f"Images {size} (channels, height, width), {network['classes']} classes.",
        "",
        "## What it does",
        "",
        *_table(
            ("exit", "after", "threshold", "leave here", "accuracy of those", "accuracy of all", "MACs"),
            [_exit_row(exit) for exit in made["exits"]],
        ),
        "",
        f"On {test['images']:,} test images, with 95 % intervals:",
        "",
        f"- accuracy {_interval(test['accuracy'])}; the full network {_interval(test['full_accuracy'])}",
        f"- loss {_points(test['accuracy_loss'])}",
        f"- {test['mean_macs']:,.0f} MACs an image on average, against {made['plain_macs']:,} of the "
        f"network without early exits: {100 * abs(saved):.1f} % {'less' if saved >= 0 else 'more'}",
        *_own_trunks(made),
        "",
        "## What is promised",
        "",
        made["calibration"]["statement"],
        "",
        f"{made['intended']}",
        "",
        "## How it was trained",
        "",
        f"- phases: {', '.join(training['phases'])}",
        f"- {recipe['epochs']} epochs a phase unless the strategy says otherwise, "
        f"{recipe['optimizer']}, rate {recipe['learning_rate']:g}, batches of {recipe['batch_size']}",
        f"- data: {data['name']}, {_counts(data)}",
        f"- with torch {training['made_with'].get('torch')} on {training['made_with'].get('device')}, "
        f"{training['made_with'].get('finished')}",
        "",
        "## Check against PyTorch",
        "",
        _check(made["check"]),
        "",
        "## Time",
        "",
        *_latency(made["latency"]),
        "",
    ]
    return "\n".join(lines)


def _exit_row(exit: Mapping[str, Any]) -> tuple[str, ...]:
    accuracy = exit["accuracy_of_leaving"]
    threshold = "–" if exit["threshold"] is None else f"{exit['threshold']:.4g}"
    return (
        str(exit["exit"]),
        f"`{exit['place']}`",
        threshold if exit["in_bundle"] else "left out",
        f"{100 * exit['share_leaving']:.1f} %",
        "–" if accuracy is None else f"{100 * accuracy:.1f} %",
        f"{100 * exit['accuracy']:.1f} %",
        "–" if exit["macs"] is None else f"{exit['macs']:,}",
    )


def _own_trunks(made: Mapping[str, Any]) -> list[str]:
    if not made["network"]["own_trunks"]:
        return []
    return [
        "- **exits have trunks of their own**: an image that leaves late has run every earlier exit's "
        "network as well, from the pixels on, and its MACs are their sum"
    ]


def _check(check: Mapping[str, Any] | None) -> str:
    if check is None:
        return "Left out (`--no-check`): nobody has compared this bundle with PyTorch."
    return (
        f"{check['images']:,} images ({check['what']}): logits differ by at most {check['largest']:.1e} "
        f"and exits and answers are the same, but for {check['near']} where a score is within "
        f"{check['tolerance']:g} of its threshold or two classes are as close."
    )


def _latency(found: Mapping[str, Any]) -> list[str]:
    if "reason" in found:
        return [f"Not measured: {found['reason']}."]
    machine = found["machine"]
    rows = [
        (str(r["batch"]), str(r["exit"]), f"{r['p50']:.3f}", f"{r['p95']:.3f}") for r in found["stages"]
    ]
    return [
        f"Milliseconds of a stage in onnxruntime {machine['onnxruntime']}, {machine['cores']} cores of "
        f"{machine['processor']}, median and 95th percentile of {found['repeats']} runs when the bundle "
        "was made; other work may have shared the machine. `python run.py --measure` measures again.",
        "",
        *_table(("batch", "stage to exit", "p50", "p95"), rows),
        "",
        f"One image at a time takes {found['mean_milliseconds_batch_1']:.3f} ms on average, by the "
        "shares above (added up from the stages).",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _interval(found: Mapping[str, float]) -> str:
    return f"{100 * found['value']:.2f} % ({100 * found['low']:.2f} to {100 * found['high']:.2f})"


def _points(found: Mapping[str, float]) -> str:
    value, low, high = (100 * found[k] for k in ("value", "low", "high"))
    return f"of accuracy {value:.2f} points ({low:.2f} to {high:.2f})"


def _counts(data: Mapping[str, Any]) -> str:
    counts = data.get("provenance", {}).get("images", {})
    return ", ".join(f"{number:,} {split}" for split, number in counts.items()) or "counts not kept"
