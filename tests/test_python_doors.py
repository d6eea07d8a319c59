"""Calls from Python with arguments of another kind: one line, before any work, and not Python's own."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Unpack

import numpy as np
import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import nn

import offramp
from offramp.api.checked import checked
from offramp.api.options import CommandOption, TrainingOptions
from offramp.bundle.runtime import Bundle, BundleError
from wording import refusal

LONG = "x" * 5000
Call = Callable[..., object]
POLICY: Any = offramp.Policy("confidence", (1, 2), (0.7, None))
SHAPE = (1, 8, 8)
NAN = torch.full((3, *SHAPE), float("nan"))


def module() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))


def images(count: int) -> torch.Tensor:
    return torch.randint(256, (count, *SHAPE), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture(scope="module")
def fitted() -> offramp.Fitted:
    net = offramp.attach(module(), exits=["0"], input_shape=SHAPE, head="linear")
    data = (images(300), torch.arange(300) % 2)
    return offramp.fit(net, "joint", train=data, recipe={"epochs": 1}, watch=False)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


def fit(fitted: offramp.Fitted, **changes: Any) -> object:
    data = {"strategy": "joint", "train": (images(300), torch.arange(300) % 2), "recipe": {"epochs": 1}}
    return offramp.fit(fitted.net, **{**data, **changes})


def calibrate(fitted: offramp.Fitted, **changes: Any) -> object:
    return fitted.calibrate(**{"max_accuracy_loss": 0.5, "anyway": True, **changes})


def attach(_: offramp.Fitted, **changes: Any) -> object:
    return offramp.attach(**{"module": module(), "exits": ["0"], "input_shape": SHAPE, **changes})


def export(fitted: offramp.Fitted, **changes: Any) -> object:
    quick = {"check": False, "measure": False, "anyway": True}
    return fitted.export(**{"folder": "bundle", "policy": POLICY, **quick, **changes})


def timed(fitted: offramp.Fitted, **changes: Any) -> object:
    return fitted.benchmark(**{"batches": 1, "repeats": 1, "seconds": 0.01, **changes})


class Two(nn.Module):
    """Two exits of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.early, self.late = nn.Linear(64, 8), nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x.flatten(1))
        return [self.early(x), self.late(x.relu())]


def program(fitted: offramp.Fitted, **changes: Any) -> object:
    return offramp.program(fitted.net, **{"strategy": "joint", **changes})


def multi(_: offramp.Fitted, **changes: Any) -> object:
    return offramp.multi_exit(**{"module": Two(), "input_shape": SHAPE, **changes})


def adopt(fitted: offramp.Fitted, **changes: Any) -> object:
    data = {"net": fitted.net, "calibration": (images(90), torch.arange(90) % 2), "normalize": "half"}
    return offramp.adopt(**{**data, **changes})


LOGITS = np.random.default_rng(0).normal(size=(300, 2, 3))
FEW = [torch.zeros(4, 2)] * 2
BATCH, TRUTH = torch.zeros(4, *SHAPE), torch.arange(4) % 2


def numbers(_: offramp.Fitted, **changes: Any) -> object:
    given = {"logits": LOGITS, "labels": np.arange(300) % 3, "costs": [1, 2], "anyway": True}
    return offramp.calibrate(**{**given, "max_accuracy_loss": 0.5, **changes})


def loss(_: offramp.Fitted, **changes: Any) -> object:
    terms = {"loss": (offramp.CE(1), offramp.CE(2)), "logits": FEW, "labels": TRUTH}
    return offramp.early_exit_loss(**{**terms, **changes})


def entered(act: Callable[[offramp.LoopPhase], object]) -> Call:
    def call(_: offramp.Fitted) -> object:
        net = offramp.attach(module(), exits=["0"], input_shape=SHAPE, head="linear")
        with offramp.program(net, "joint")[0] as phase:
            return act(phase)

    return call


CALLS: dict[str, tuple[Call, dict[str, Any]]] = {
    "batch is text": (calibrate, {"batch": "x"}),
    "score is none": (calibrate, {"score": None}),
    "score is a list": (calibrate, {"score": []}),
    "shared is text": (calibrate, {"shared": "yes"}),
    "anyway is text": (calibrate, {"anyway": "yes"}),
    "no folder": (export, {"folder": None}),
    "folder is a number": (export, {"folder": 3}),
    "folder of 5,000 letters": (export, {"folder": LONG}),
    "folder with a null": (export, {"folder": "a\0b"}),
    "policy with a null": (export, {"policy": "a\0b"}),
    "no policy": (export, {"policy": None}),
    "int8 is text": (export, {"int8": "yes"}),
    "int8 is a list": (export, {"int8": [1]}),
    "int8 is NaN": (export, {"int8": float("nan")}),
    "check is text": (export, {"check": "x"}),
    "batches are text": (timed, {"batches": "x"}),
    "batches are half": (timed, {"batches": 2.5}),
    "repeats are text": (timed, {"repeats": "x"}),
    "threads beyond all bounds": (timed, {"threads": 10**9}),
    "exits are half": (attach, {"exits": 2.5}),
    "a billion exits": (attach, {"exits": 10**9}),
    "huge images": (attach, {"input_shape": (1, 10**6, 10**6)}),
    "huger images": (attach, {"input_shape": (2**62, 2**62, 2**62)}),
    "huge classes": (attach, {"module": "resnet18", "exits": 1, "classes": 2**40}),
    "huge head": (attach, {"head": {"kind": "mlp", "hidden": 2**62}}),
    "head without names": (attach, {"head": {3: 4}}),
    "module with a null": (attach, {"module": "a\0.py:f", "classes": 2}),
    "module of 5,000 letters": (attach, {"module": LONG, "classes": 2}),
    "watch is a number": (fit, {"watch": 3}),
    "meta images": (fit, {"train": (images(300).to("meta"), torch.arange(300) % 2)}),
    "sparse images": (fit, {"train": (images(300).float().to_sparse(), torch.arange(300) % 2)}),
    "meta labels": (fit, {"train": (images(300), torch.arange(300).to("meta"))}),
    "device is a number": (fit, {"device": 1e999}),
    "store with a null": (fit, {"store": "a\0b"}),
    "options are a number": (fit, {"options": 3}),
    "predict meta": (lambda f: f.predict(images(3).to("meta"), POLICY), {}),
    "predict sparse": (lambda f: f.predict(images(3).float().to_sparse(), POLICY), {}),
    "predict NaN": (lambda f: f.predict(NAN, POLICY), {}),
    "normalize nothing": (lambda f: f.normalize(None), {}),
    "normalize meta": (lambda f: f.normalize(images(3).to("meta")), {}),
    "run with a null": (lambda _: offramp.run("a\0b"), {}),
    "run watch": (lambda _: offramp.run("s.yaml", watch=3), {}),
    "run settings": (lambda _: offramp.run("s.yaml", settings=3), {}),
    "run store": (lambda _: offramp.run("s.yaml", store=3), {}),
    "load number": (lambda _: offramp.load(3), {}),
    "load policy number": (lambda _: offramp.Policy.load(3), {}),
    "load policy null": (lambda _: offramp.Policy.load("a\0b"), {}),
    "policy of numbers": (lambda _: offramp.Policy("confidence", 3, 4), {}),
    "serve port": (lambda _: offramp.serve_bundle("b", port="x"), {}),
    "serve port out of range": (lambda _: offramp.serve_bundle("b", port=10**6), {}),
    "more MACs than a float": (calibrate, {"max_mean_macs": 10**400}),
    "more images than an int": (calibrate, {"batch": 10**30}),
    "rows of a batch beyond all": (fit, {"recipe": {"batch_size": 10**30, "epochs": 1}}),
    "serve alarm before now": (lambda _: offramp.serve_bundle("b", alarm_every=-1), {}),
    "predict no image at once": (lambda _: offramp.predict("b", ["a.png"], batch=0), {}),
    "search without trials": (lambda _: offramp.search("s.yaml", trials=0), {}),
    "report without workers": (lambda _: offramp.write_report("runs", workers=0), {}),
    "copy null": (lambda _: offramp.copy_store("st", "a\0b"), {}),
    "splits nowhere": (lambda _: offramp.save_splits(offramp.DataSpec("digits"), None), {}),
    "program options": (program, {"options": 3}),
    "program strategy": (program, {"strategy": None}),
    "program class weights": (program, {"class_weights": [1, 2]}),
    "program weights below 0": (program, {"class_weights": torch.tensor([-1.0, 1.0])}),
    "program weights that are whole": (program, {"class_weights": torch.tensor([1, 2])}),
    "program smoothing": (program, {"label_smoothing": float("nan")}),
    "control is text": (fit, {"control": "yes"}),
    "control is a number": (fit, {"control": 3}),
    "control of other classes": (fit, {"control": nn.Sequential(nn.Flatten(), nn.Linear(64, 5))}),
    "beside without a control": (lambda f: f.beside(POLICY), {}),
    "phase groups": (entered(lambda phase: phase.groups("x")), {}),
    "phase state": (entered(lambda phase: phase.load_state_dict(3)), {}),
    "phase images": (entered(lambda phase: phase.module("x", TRUTH)), {}),
    "phase channels last": (entered(lambda p: p.module(BATCH.permute(0, 2, 3, 1), TRUTH)), {}),
    "phase bytes": (entered(lambda phase: phase.module(images(4), TRUTH)), {}),
    "phase meta": (entered(lambda phase: phase.module(BATCH.to("meta"), TRUTH)), {}),
    "phase labels": (entered(lambda phase: phase.module(BATCH, [0] * 4)), {}),
    "phase sparse labels": (entered(lambda p: p.module(BATCH, TRUTH.float().to_sparse())), {}),
    "phase loss": (entered(lambda phase: phase.module.loss(3, TRUTH)), {}),
    "multi shape": (multi, {"input_shape": 3}),
    "multi huge shape": (multi, {"input_shape": (1, 10**6, 10**6)}),
    "multi shape below 0": (multi, {"input_shape": (-1, 8, 8)}),
    "multi heads": (multi, {"heads": [1, 2]}),
    "multi segments": (multi, {"segments": [None, None]}),
    "multi module": (multi, {"module": None}),
    "multi outputs": (multi, {"outputs": lambda returned: returned["x"]}),
    "adopt nothing": (adopt, {"net": None}),
    "adopt data": (adopt, {"calibration": 3}),
    "adopt normalize": (adopt, {"normalize": 3}),
    "adopt classes": (adopt, {"classes": "ab"}),
    "adopt huge shape": (adopt, {"net": Two(), "input_shape": (2**62, 2**62, 2**62)}),
    "adopt outputs": (adopt, {"net": Two(), "outputs": 3}),
    "adopt name": (adopt, {"name": ""}),
    "adopt seed": (adopt, {"seed": -1}),
    "adopt store": (adopt, {"store": "a\0b"}),
    "adopt device": (adopt, {"device": 1e999}),
    "numbers of text": (numbers, {"logits": "x"}),
    "numbers of meta": (numbers, {"logits": torch.tensor(LOGITS).to("meta")}),
    "numbers of objects": (numbers, {"logits": np.array([[object()]])}),
    "numbers infinite": (numbers, {"logits": np.where(LOGITS > 2, np.inf, LOGITS)}),
    "numbers labels": (numbers, {"labels": np.full(300, np.nan)}),
    "numbers costs": (numbers, {"costs": "x"}),
    "numbers huge costs": (numbers, {"costs": [1, 10**30]}),
    "numbers validation": (numbers, {"validation": 3}),
    "loss terms": (loss, {"loss": "x"}),
    "loss of nothing": (loss, {"loss": ()}),
    "loss logits": (loss, {"logits": 3}),
    "loss arrays": (loss, {"logits": [np.zeros((4, 2))] * 2}),
    "loss rows": (loss, {"logits": [torch.zeros(4)] * 2}),
    "loss labels": (loss, {"labels": "x"}),
    "loss smoothing": (loss, {"label_smoothing": "x"}),
    "loss weights": (loss, {"class_weights": torch.ones(3)}),
    "loss teacher": (loss, {"teacher": 3}),
    "a billion segments": (lambda _: offramp.segments(1, 10**9), {}),
    "half heads": (lambda _: offramp.heads(1, 2.5), {}),
}


@pytest.mark.parametrize(("call", "changes"), CALLS.values(), ids=CALLS)
def test_an_argument_of_another_kind_is_one_line(
    call: Call, changes: dict[str, Any], fitted: offramp.Fitted, snapshot: SnapshotAssertion
) -> None:
    assert refusal(call, fitted, **changes) == snapshot


@pytest.mark.parametrize("call", [calibrate, attach, fit, timed, program, multi, adopt, numbers, loss])
def test_the_same_doors_take_what_is_right(call: Call, fitted: offramp.Fitted) -> None:
    assert call(fitted) is not None


def test_what_is_right_is_answered(fitted: offramp.Fitted, snapshot: SnapshotAssertion) -> None:
    assert len(fitted.predict(images(3), POLICY).classes) == 3
    numbers = np.asarray(fitted.normalize(images(3)).cpu())
    assert len(fitted.predict(numbers, POLICY).classes) == 3
    numbers[1, 0, 2, 3] = np.inf
    assert refusal(fitted.predict, numbers, POLICY) == snapshot


def test_a_bundle_answers_no_nan(
    fitted: offramp.Fitted, tmp_path_factory: pytest.TempPathFactory, snapshot: SnapshotAssertion
) -> None:
    folder = tmp_path_factory.mktemp("nan") / "bundle"
    export(fitted, folder=folder)
    numbers = np.zeros((2, 8, 8, 1), np.float32)
    assert len(Bundle(folder).predict(numbers).classes) == 2
    numbers[1, 2, 3] = np.nan
    with pytest.raises(BundleError) as caught:
        Bundle(folder).predict(numbers)
    assert str(caught.value) == snapshot


def test_bounds_of_options_hold(snapshot: SnapshotAssertion) -> None:
    @checked
    def job(
        batch: Annotated[int | None, CommandOption("N", least=1, most=9)] = None,
        sizes: Annotated[Sequence[int], CommandOption("N", least=2)] = (2,),
    ) -> int:
        return batch or sizes[0]

    assert [job(), job(1), job(9), job(sizes=[3, 2])] == [2, 1, 9, 3]
    assert [refusal(job, wrong) for wrong in (0, 10)] == snapshot
    assert refusal(job, sizes=[2, 1]) == snapshot


def test_a_text_for_a_path_becomes_one() -> None:
    def own(out: Annotated[Path, CommandOption()], either: str | Path, file: Path | None = None) -> Any:
        return out, either, file

    door = checked(own)
    assert door("a", "b", "c") == (Path("a"), "b", Path("c")) and door(Path("a"), "b")[2] is None
    assert checked(described)(data_root="a") == Path("a")


def described(**options: Unpack[TrainingOptions]) -> Any:
    """A function that takes settings of several."""
    return options["data_root"]


def test_a_function_stays_what_it_is() -> None:
    def own(a: int, *, b: float = 0.5) -> float:
        """Says so."""
        return a + b

    door = checked(own)
    assert (door.__name__, door.__doc__) == ("own", "Says so.") and door(1, b=np.float32(2)) == 3
    assert checked(own) is door and door(np.int64(2), b=1) == 3
    for wrong in (True, 1.0, "1", None):
        assert "give a whole number" in refusal(door, wrong)
    with pytest.raises(TypeError, match="unexpected keyword"):
        door(1, c=3)
