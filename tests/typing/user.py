"""What a user writes, for type checkers alone: mypy --strict and pyright find nothing to say.

A line that must be an error carries an ignore, which mypy reports where it is not needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack, assert_type

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import offramp
from offramp import (
    BEFORE,
    CE,
    KD,
    LIVE,
    MSE,
    Augment,
    Built,
    Calibration,
    Chart,
    Costs,
    DataSpec,
    Event,
    ExitNetwork,
    Exported,
    Features,
    Fitted,
    Gated,
    Gates,
    Goal,
    Init,
    Limits,
    OfframpError,
    OfframpWarning,
    Phase,
    Policy,
    Prediction,
    Predictor,
    Recipe,
    Results,
    Strategy,
    Survivors,
    Unsolved,
    backbone,
    head,
    heads,
    segment,
    segments,
)


def mine(exits: int, *, temperature: float = 2.0) -> tuple[Phase, ...]:
    learn = tuple(KD(k, teacher_exit=exits, temperature=temperature) for k in range(1, exits))
    return (
        Phase("all", train=backbone(exits), loss=(CE(exits, weight=0.5),), recipe=(("epochs", 2),)),
        Phase("heads", train=heads(1, exits - 1), loss=learn, teacher="all"),
        Phase("one", train=segment(1) | head(1), loss=(CE(1),), init={head(1): Init.FRESH}),
        Phase("rest", train=segments(2, exits), loss=(CE(exits), KD(1, exits)), teacher=BEFORE),
    )


def live(exits: int) -> tuple[Phase, ...]:
    everything = segments(1, exits) | heads(1, exits)
    every = tuple(range(1, exits + 1))
    return (
        Phase(
            "together",
            train=everything,
            loss=(
                *(CE(k) for k in every),
                *(MSE(1, teacher_exit=every), KD(1, teacher_exit=exits)),
                Features(1, teacher_exit=exits, weight=0.03, over="sum"),
            ),
            teacher=LIVE,
            backward=[(heads(1, exits - 1), 0.5)],
            sample_weights=Unsolved(hard=False),
            carry=0.5,
        ),
        Phase("heads", heads(1, exits), (CE(1),), sample_weights=Survivors(threshold=0.9)),
        Phase("gates", heads(1, exits), (CE(1), Gates(every, cost=0.2)), sample_weights=Gated()),
    )


def listed(exits: int) -> list[Phase]:
    return [*mine(exits)]


def in_order(exits: int) -> Sequence[Phase]:
    return listed(exits)


def nothing(exits: int) -> int:
    return exits


def attached(module: nn.Module) -> ExitNetwork:
    net = offramp.attach(module, exits=["layer1"], input_shape=(3, 32, 32), head="linear")
    net.load_state_dict(module.state_dict())
    offramp.attach(module, "layer1", torch.Size([3, 32, 32]))
    offramp.attach(module, taps=["layer1"])  # type: ignore[call-arg]
    return net


class Photos(Dataset[tuple[Tensor, int]]):
    """As torchvision's are."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.zeros(3, 32, 32), index

    def __len__(self) -> int:
        return 8


class Rows:
    """As those of Hugging Face."""

    def __getitem__(self, key: int | slice | list[int]) -> Any:
        return key

    def __len__(self) -> int:
        return 8


def any_dataset() -> Dataset[Any]:
    return Photos()


def trained(net: ExitNetwork, images: Tensor, labels: Tensor) -> Fitted:
    recipe, augment = Recipe(epochs=2, schedule="cosine"), Augment(flip=True, crop=2)
    Recipe(schedule="cosinus")  # type: ignore[arg-type]
    offramp.fit(net, "joint", train=(images, labels), recipe={"epochs": 2}, augment=["flip"])
    offramp.fit(net, listed, train=(images, labels))
    offramp.fit(net, in_order, train=(images, labels))
    offramp.fit(net, nothing, train=(images, labels))  # type: ignore[arg-type]
    for samples in (
        Photos(),
        Subset(Photos(), [0]),
        TensorDataset(images, labels),
        [(images, 1)],
        Rows(),
    ):
        offramp.fit(net, "joint", train=samples, plain=samples, validation=samples, test=samples)
    offramp.fit(net, "joint", any_dataset(), calibration=(images.numpy(), [1, 2]))
    offramp.fit(net, "joint", train=5)  # type: ignore[arg-type]
    offramp.fit(net, "joint", train=DataLoader(Photos()))  # type: ignore[arg-type]
    return offramp.fit(net, mine, train=(images, labels), recipe=recipe, augment=augment)


def used(fitted: Fitted, images: Tensor) -> dict[str, Any]:
    policy: Policy = fitted.calibrate(max_accuracy_loss=0.01)
    fitted.calibrate(max_accuracy_loss="1%")
    fitted.calibrate(max_mean_latency="5ms", batch=8)
    offramp.build("resnet18", "folder:photos", "bundle", max_p95_latency="5ms", stage_times="t.json")
    fitted.calibrate(max_accuracy_loss=[0.01])  # type: ignore[arg-type]
    fitted.calibrate(max_acuracy_loss=0.01)  # type: ignore[call-arg]
    by_hand = Policy("confidence", exits=[1, 2], thresholds=[0.9, None])
    kept: tuple[float | None, ...] = by_hand.thresholds
    made: Calibration = policy.calibration
    answers: Prediction = fitted.predict(images, by_hand)
    exits: Tensor = answers.exits
    logits: tuple[Tensor, ...] = assert_type(fitted.net(images), tuple[Tensor, ...])
    fitted.net("photo.png")  # type: ignore[arg-type]
    times = fitted.benchmark(policy, batches=[1, 8])
    done: Exported = fitted.export("bundle", policy, measure=False)
    policy.save("policy.json")
    again: Predictor = offramp.predictor(fitted.net, Policy.load("policy.json"))
    shown = fitted.table().to_string()
    return {
        "exits": exits.shape,
        "logits": logits[0].shape,
        "times": times.to_dict(),
        "said": made.statement,
        "shown": shown,
        "done": done.card,
        "kept": kept,
        "again": again(images),
    }


def wrapped(net: ExitNetwork, strategy: Strategy, **limits: Unpack[Limits]) -> tuple[int, ...]:
    def seen(event: Event) -> None:
        print(event)

    fitted = offramp.fit(net, strategy, train=Rows(), watch=seen)
    costs = Costs(segments=(400, 600), heads=(10, 20), owners=(0, 0), exits=(1, 2))
    return fitted.calibrate(**limits).macs(costs)


def studied(folder: Path) -> ExitNetwork:
    results: Results = offramp.run({"strategies": ["joint", mine]}, store=folder, workers="auto")
    chart: Chart = results.figure("accuracy-compute")
    chart.save(folder / "chart.svg")
    print(results.table().columns, chart.svg, results)
    warnings.simplefilter("error", OfframpWarning)
    try:
        net = offramp.load(results.trials[0], store=folder, device="cpu")
    except OfframpError as error:
        raise SystemExit(str(error)) from None
    answer = offramp.predictor(net, folder / "policy.json")
    print(answer(torch.zeros(1, 3, 32, 32)).classes, offramp.__version__)
    offramp.fitt()  # type: ignore[attr-defined]
    return net


def built(out: Path) -> Policy:
    goal: Goal = "latency"
    offramp.save_splits(DataSpec("folder", root="photos"), "splits.json")
    done: Built = offramp.build("resnet18", "folder:photos", out, goal=goal, risk=0.02, confidence=0.9)
    print(done.card["trial"], done.folder, done.reasons)
    return done.policy
