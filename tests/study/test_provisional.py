"""Plans of studies whose data or weights are not here."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from longer import long
from offramp.data import DataSpec
from offramp.data.load import declared_counts, declared_data, missing
from offramp.data.raw import DeclaredCounts
from offramp.nets import pretrained
from offramp.nets.network import inside
from offramp.store.archive import Archive
from offramp.store.store import Store
from offramp.study.plan.forecast import forecast
from offramp.study.plan.plan import make_plan
from offramp.study.spec import file as spec
from support import CPU
from wording import refusal

STUDY: dict[str, Any] = {
    "seeds": [1],
    "strategies": ["two-stage"],
    "backbone": {"name": "mobilenetv1", "weights": "imagenet"},
    "data": {"name": "cifar10", "train_images": 1000},
    "recipe": {"epochs": 2},
}


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(pretrained, "_public", lambda _: pytest.fail("weights were fetched"))


def test_declared_counts_are_split_as_any_data() -> None:
    data = declared_data(DataSpec("cifar10"))
    assert [len(s) for s in data.splits.values()] == [45_000, 2_500, 2_500, 10_000]
    assert data.shape == (3, 32, 32) and len(data.classes) == 10
    small = declared_data(DataSpec("cifar10", train_images=1000, test_images=50, size=48, channels=1))
    assert [len(s) for s in small.splits.values()] == [600, 200, 200, 50] and small.shape == (1, 48, 48)
    as_paper = declared_data(DataSpec("cifar100", validation="test"))
    assert as_paper.validation is as_paper.test


def test_declared_counts_are_the_public_ones() -> None:
    def declared(name: str, **options: object) -> DeclaredCounts:
        counts = declared_counts(name, options)
        assert counts is not None
        return counts

    for name, sums in {
        "cifar10": (50_000, 10_000, 10),
        "cifar100": (50_000, 10_000, 100),
        "imagenet100": (126_689, 5_000, 100),
    }.items():
        counts = declared(name)
        assert (sum(counts.train), sum(counts.test), len(counts.train)) == sums
    chest, official = declared("chestxray14"), declared("chestxray14", split="official")
    assert official != chest == declared("chestxray14", split="image")
    for counts in (chest, official):
        assert [a + b for a, b in zip(counts.train, counts.test, strict=True)] == [60_361, 1_431]
    assert sum(chest.test) == round(0.2 * 60_361) + round(0.2 * 1_431)
    listed = declared_data(DataSpec("chestxray14", options=(("split", "official"),)))
    assert torch.bincount(listed.test.labels).tolist() == [9_861, 555]
    assert declared_counts("chestxray14", {"negatives": 4}) is None


def test_data_is_declared_only_where_it_is_not_here_and_the_counts_hold(tmp_path: Path) -> None:
    assert missing(DataSpec("cifar10")) is not None
    assert "there is no folder" in str(missing(DataSpec("cifar10", root=str(tmp_path / "x"))))
    assert missing(DataSpec("cifar10", root=str(tmp_path))) is None  # whatever is wrong is said
    assert missing(DataSpec("digits")) is None
    assert missing(DataSpec("cifar100", options=(("coarse", True),))) is None  # 20 classes


def test_a_provisional_plan_says_so_and_finds_nothing_in_a_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = make_plan(spec.parse(STUDY), CPU, provisional=True)
    assert [line.partition(":")[0] for line in plan.provisional] == ["cifar10", "mobilenetv1"]
    assert len(plan.data.train) == 600 and plan.study.backbone.weights == "imagenet"

    monkeypatch.setattr(Archive, "has_node", lambda *_: True)
    foreseen = forecast(plan, Store(tmp_path), CPU, 1e9)
    assert foreseen.totals.nodes_in_store == 0 and foreseen.provisional == plan.provisional
    assert foreseen.totals.seconds == foreseen.totals.macs / 1e9


def test_a_run_is_never_provisional(snapshot: SnapshotAssertion) -> None:
    assert refusal(make_plan, spec.parse(STUDY), CPU) == snapshot


def test_weights_are_at_hand_where_torch_or_the_hub_has_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not pretrained.at_hand("imagenet", "resnet18")
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert pretrained.at_hand("imagenet", "resnet18") and not pretrained.at_hand("imagenet", "resnet50")
    assert not pretrained.at_hand("imagenet", "mobilenetv1") and not pretrained.at_hand(
        "imagenet", "digits-cnn"
    )
    assert pretrained.at_hand("imagenet", "torchvision/resnet19") is None
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: "/there")
    assert pretrained.at_hand("imagenet", "mobilenetv1")
    assert pretrained.at_hand(str(cached), "resnet50") and not pretrained.at_hand("none.pth", "resnet50")


def test_at_scale_small_absent_weights_are_left_out_and_it_says_so() -> None:
    plan = make_plan(spec.parse(STUDY | {"scale": "small"}), CPU, provisional=True)
    assert plan.study.backbone.weights is None and "from scratch" in plan.remarks[0]
    assert [line.partition(":")[0] for line in plan.provisional] == ["cifar10"]


STEMS: list[Any] = [
    ("resnet18", 32, "small", None),
    *long(("resnet18", 96, "medium", None), ("mobilenetv2", 224, "imagenet", None)),
    ("mobilenetv2", 32, "small", "maps of 2×2 px of images of 32×32 px"),
    ({"name": "resnet18", "stem": "imagenet"}, 32, "imagenet", "1×1 px .* or backbone.stem: small"),
    *long(
        ({"name": "resnet18", "weights": "imagenet"}, 32, "imagenet", "1×1 px"),
        ("vgg16", 32, None, "1×1 px .* use larger images$"),
    ),
    *long(("airbench", 32, None, None)),
]


@pytest.mark.parametrize(("backbone", "size", "stem", "remark"), STEMS)
def test_small_images_get_a_stem_that_fits_and_a_warning_where_none_is(
    backbone: Any, size: int, stem: str | None, remark: str | None
) -> None:
    study = {**STUDY, "backbone": backbone, "data": {**STUDY["data"], "size": size}}
    plan = make_plan(spec.parse(study), CPU, provisional=True)
    assert inside(plan.net).facts.identity["options"].get("stem") == stem
    remarks = " ".join(plan.remarks)
    assert re.search(remark, remarks) if remark else not remarks
