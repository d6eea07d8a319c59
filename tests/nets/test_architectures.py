"""What becomes of many architectures with exits: every row of docs/backbones.md."""

import copy

import pytest
import torch
from benchmarks.backbones import (
    BRANCHING,
    CASES,
    PAGE,
    Case,
    Row,
    exported,
    pictures,
    plain,
    row,
    same,
    short,
    step,
    tried,
)

from offramp.nets import ExitNetwork, build

HERE = ("torchvision/squeezenet1_1", f"{BRANCHING}:by_value")
"""What `make test` looks at, without graphs, which take seconds: they are for `make test-slow`."""
REFUSED = {
    "timm/crossvit_9_240": "no single tensor feeds the classifier of CrossVit",
    f"{BRANCHING}:by_value": "its submodule 'sharpen' (Sharpen) stops the trace",
}
"""Networks that get no exits where nobody says where, and why."""
NO_BUNDLE = {f"{BRANCHING}:by_value": "cannot be an ONNX graph (Could not guard on data-dependent"}
BY_SIZE = Case("by hand", f"{BRANCHING}:by_size", 16, taps=1)


def named(case: Case) -> str:
    return f"{case.name.rpartition('/')[2]}{'' if case.taps is None else '-in-lists'}"


@pytest.mark.journey
@pytest.mark.filterwarnings("default")  # of libraries, which the table is not about
@pytest.mark.parametrize("case", [case for case in CASES if case.name in HERE], ids=named)
def test_it_attaches_answers_and_trains(case: Case) -> None:
    holds(tried(case, bundle=False))


@pytest.mark.journey
@pytest.mark.long
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", CASES, ids=named)
def test_it_attaches_answers_trains_and_exports(case: Case) -> None:
    outcome = tried(case)
    holds(outcome)
    if outcome.refused:
        return
    if case.name in NO_BUNDLE:
        assert NO_BUNDLE[case.name] in outcome.kept
    else:
        assert outcome.kept == "" and outcome.gap is not None and outcome.gap <= outcome.bound


def holds(outcome: Row) -> None:
    """All that a row says, but for the bundle."""
    case = outcome.case
    if case.taps is None and case.name in REFUSED:
        assert REFUSED[case.name] in outcome.refused and not outcome.exits
        return
    assert outcome.refused == ""
    assert outcome.places >= len(outcome.exits) >= 1
    shares = [share for _, share, _ in outcome.exits]
    assert shares == sorted(shares) and shares[0] > 0 and shares[-1] < 0.96
    assert outcome.equal and outcome.trains


def test_there_are_many_of_them() -> None:
    good = [case for case in CASES if case.name not in REFUSED]
    assert len({case.name for case in good}) >= 30 and len({case.family for case in good}) >= 15


def test_the_page_has_a_row_for_each() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "`" in line]
    ours = [row(Row(case)).split("|")[1:4] for case in CASES]
    assert [line.split("|")[1:4] for line in lines] == ours


@pytest.fixture(scope="module")
def net() -> ExitNetwork:
    return build(BY_SIZE.spec, BY_SIZE.shape, 5, seed=0)


class TestControls:
    """What is looked at would be seen, were it otherwise."""

    def test_another_last_bit_is_not_the_same(self, net: ExitNetwork) -> None:
        images, module = pictures(BY_SIZE.shape), plain(BY_SIZE, net)
        assert same(net, module, images)
        with torch.no_grad():
            module.fc.bias.mul_(1 + 1e-6)
        assert not same(net, module, images)

    def test_a_weight_without_a_finite_gradient(self, net: ExitNetwork) -> None:
        broken = copy.deepcopy(net)
        with torch.no_grad():
            broken.head_parameters()[0].fill_(float("inf"))
        assert step(copy.deepcopy(net), pictures(BY_SIZE.shape))
        assert not step(broken, pictures(BY_SIZE.shape))

    @pytest.mark.long  # as what it is a control of
    def test_graphs_are_of_these_weights(
        self, net: ExitNetwork, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from offramp.bundle import graphs

        images, other, export = pictures(BY_SIZE.shape), copy.deepcopy(net).eval(), graphs.export
        with torch.no_grad():
            other.fc.bias.add_(1e-3)
        monkeypatch.setattr(graphs, "export", lambda _, *rest: export(other, *rest))
        gap, bound = exported(net, images)
        assert gap > bound


def test_a_refusal_fits_a_cell() -> None:
    cell = short(f"{BRANCHING}:by_value is\na | b")
    assert cell == "refused: branching.py:by_value is a \\| b"
