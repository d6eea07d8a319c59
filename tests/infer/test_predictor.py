"""The predictor answers as the policy does on the logits of all exits, and runs no more than it must."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from longer import long
from offramp.engine.values import IMAGES as IMAGE
from offramp.engine.values import Point, compute, join
from offramp.infer import predictor as module
from offramp.infer.predictor import Prediction, Predictor
from offramp.nets import ExitNetwork, attach
from offramp.nets.network import inside
from offramp.parts import backbone
from offramp.policy import scoring
from offramp.policy.learned import GateNumbers
from offramp.policy.policy import Policy
from offramp.study.run.trials import load_network
from refusal import refuses
from support import CPU, network, run_all, tiny_plan, tiny_study
from wording import refusal

NEAR = 1e-5
ROWS = 37
# Of every brightness between those of two classes, so that scores are spread.
NOISE = torch.randn(ROWS, 1, 8, 8, generator=torch.Generator().manual_seed(3))
IMAGES = 0.5 * NOISE + torch.linspace(-1.5, 1.5, ROWS).view(-1, 1, 1, 1)[(7 * torch.arange(ROWS)) % ROWS]
ONE_LABEL = tuple(name for name, score in scoring.SCORES.items() if not score.several)
SCORES = tuple(name for name in ONE_LABEL if scoring.SCORES[name].graded)
# One exit, one trunk, several, exits that add up, and that have learned to.
EVERY = ("baseline", "joint", "separate", "boosted", "cascade", "imta")
WARM = (0.7, 1.3, 2.0, 1.1)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ExitNetwork, tuple[int, ...]]]:
    """The trained network of every strategy, and the exits it has."""
    store, _ = run_all(tiny_plan(tiny_study(EVERY)), tmp_path_factory.mktemp("predictor"))
    networks = {}
    for trial in store.trials():
        manifest = store.read_trial(trial)
        networks[manifest.strategy] = load_network(store, trial, CPU), manifest.exits
    assert set(networks) == set(EVERY)
    return networks


@pytest.fixture(scope="module")
def joint(nets: dict[str, tuple[ExitNetwork, tuple[int, ...]]]) -> ExitNetwork:
    return nets["joint"][0]


def all_exits(net: ExitNetwork, exits: tuple[int, ...], images: Tensor) -> Tensor:
    with torch.no_grad():
        by_exit = net(images)
    return torch.stack([by_exit[k - 1] for k in exits], dim=1)


def gates_of(score: str, early: int) -> GateNumbers | None:
    """Some gates, for a score that reads them."""
    if not scoring.SCORES[score].learned:
        return None
    return (*((3.0, 1.0, 2.0, 0.5, -4.0),) * early, None)


def policies(
    logits: Tensor,
    exits: tuple[int, ...],
    warmth: tuple[float, ...] | None,
    scores: tuple[str, ...],
) -> Iterator[Policy]:
    """Of those graded scores, and of all that count; thresholds at which all, none, one and some of
    the rows leave."""
    early = len(exits) - 1
    for score in scores:
        gates = gates_of(score, early)
        sure = scoring.scores(score, logits, warmth, gates)
        for leaving in (ROWS, ROWS - 1, ROWS // 2, 1, 0):
            cuts = [above(sure[:, i], leaving) for i in range(early)]
            yield Policy(score, exits, (*cuts, None), warmth, gates=gates)
            if early > 1 and leaving == ROWS // 2:
                yield Policy(score, exits, (None, *cuts[1:], None), warmth, gates=gates)
    for run in (1.0, 2.0, 3.0, 9.0):
        yield Policy("patience", exits, (*(run,) * early, None))
        yield Policy("agreement", exits, (*(run,) * early, None))
    if early > 1:
        yield Policy("patience", exits, (None, *(2.0,) * (early - 1), None))
    for at in range(early):
        yield Policy("fixed", exits, tuple(0.0 if i == at else None for i in range(early + 1)))
    yield Policy("fixed", exits, (None,) * (early + 1))


def above(scores: Tensor, leaving: int) -> float:
    """A threshold that so many of the scores reach, or the next number of them that leaves room on
    both sides."""
    steps = torch.cat([torch.zeros(1), scores.sort().values, torch.ones(1)])
    roomy = (steps.diff() > 4 * NEAR).nonzero().squeeze(1)
    at = int(roomy[(roomy - (len(scores) - leaving)).abs().argmin()])
    return float((steps[at] + steps[at + 1]) / 2)


def near(policy: Policy, logits: Tensor) -> Tensor:
    """[N]: where rounding may decide: a score beside its threshold, or two largest logits alike."""
    top = scoring.all_answer_logits(policy.score, logits).topk(2, dim=-1).values
    tie = (top[..., 0] - top[..., 1]).abs().amin(dim=1) < NEAR
    scores = scoring.scores(policy.score, logits, policy.temperatures, policy.gates)
    for at, threshold in enumerate(policy.thresholds):
        if threshold is not None and policy.score in SCORES:
            tie |= (scores[:, at] - threshold).abs() < NEAR
    return tie


def check(policy: Policy, prediction: Prediction, logits: Tensor) -> int:
    """Compare; the number of rows that rounding may decide, which are left out."""
    places = policy.leaves(logits)
    sure = ~near(policy, logits)
    chosen = scoring.all_answer_logits(policy.score, logits)[torch.arange(len(logits)), places]
    assert torch.equal(prediction.exits[sure], torch.tensor(policy.exits)[places][sure])
    assert torch.equal(prediction.classes[sure], scoring.answers(chosen)[sure])
    torch.testing.assert_close(prediction.logits[sure], chosen[sure], rtol=1e-4, atol=1e-5)
    warmth = torch.tensor(policy.temperatures or (1.0,) * len(policy.exits))[places]
    expected = torch.softmax(chosen / warmth[:, None], dim=-1).amax(dim=-1)
    torch.testing.assert_close(prediction.confidence[sure], expected[sure], rtol=1e-4, atol=1e-5)
    return int((~sure).sum())


FEW = ("confidence", "ensemble")  # of one exit's answer, and of those before it too


@pytest.mark.parametrize(
    ("strategy", "scores"),
    [
        ("joint", SCORES),
        ("separate", FEW),
        ("cascade", FEW),
        *long(*((name, SCORES) for name in EVERY if name != "joint")),
    ],
    ids=lambda value: value if isinstance(value, str) else "few" if value == FEW else "all",
)
def test_every_policy_on_every_strategy(strategy: str, scores: tuple[str, ...], nets: Any) -> None:
    net, exits = nets[strategy]
    warmths = (None, WARM[: len(exits)])
    left_out = total = 0
    for warmth in warmths:
        logits = all_exits(net, exits, IMAGES)
        for policy in policies(logits, exits, warmth, scores):
            policy = replace(policy, carry=inside(net).carry)
            predictor = Predictor(net, policy)
            batches = [vars(predictor(some)) for some in IMAGES.split((1, 7, ROWS - 8))]
            prediction = Prediction(**{key: torch.cat([b[key] for b in batches]) for key in batches[0]})
            left_out += check(policy, prediction, logits)
            total += ROWS
    assert left_out <= total / 100


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_thresholds_and_rows(joint: ExitNetwork, data: st.DataObject) -> None:
    exits = data.draw(st.sampled_from([(1, 2, 3, 4), (1, 4), (2, 3, 4), (1, 3), (4,), (2,)]))
    score = data.draw(st.sampled_from(ONE_LABEL))
    counts = st.integers(1, 5).map(float)
    ranges = {"patience": counts, "agreement": counts, "fixed": st.just(0.0)}
    threshold = st.none() | ranges.get(score, st.floats(0, 1, width=32))
    early = tuple(data.draw(threshold) for _ in exits[:-1])
    warm = data.draw(st.none() | st.tuples(*(st.floats(0.2, 5) for _ in exits)))
    policy = Policy(score, exits, (*early, None), warm, gates=gates_of(score, len(early)))
    rows = data.draw(st.integers(0, ROWS))
    logits = all_exits(joint, exits, IMAGES)[:rows]
    check(policy, Predictor(joint, policy)(IMAGES[:rows]), logits)


def test_no_images_at_all(joint: ExitNetwork) -> None:
    prediction = Predictor(joint, Policy("confidence", (1, 4), (0.5, None)))(IMAGES[:0])
    shapes = {name: tuple(tensor.shape) for name, tensor in vars(prediction).items()}
    assert shapes.pop("logits") == (0, 3) and set(shapes.values()) == {(0,)}


class Calls(TorchDispatchMode):
    """Counts what makes the host wait, and the rows that convolutions and matrix products are given."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0
        self.convolved: list[int] = []
        self.packed = 0  # maps of which rows were taken

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        masked = name.startswith(("aten::index", "aten::_index_put")) and any(
            t is not None and t.dtype == torch.bool
            for t in (args[1] if isinstance(args[1], (list, tuple)) else [args[1]])
            if isinstance(t, Tensor)
        )
        waiting = ("aten::_local_scalar_dense", "aten::nonzero", "aten::item", "aten::masked_select")
        if masked or name.startswith((*waiting, "aten::equal", "aten::is_nonzero")):
            self.waits += 1
        self.packed += name.startswith("aten::index.") and args[0].dim() == 4
        if "conv" in name and "reorder" not in name:
            self.convolved.append(len(args[0]))
        return func(*args, **(kwargs or {}))


def half(net: ExitNetwork, exits: tuple[int, ...] = (1, 2, 3, 4)) -> Policy:
    sure = scoring.scores("confidence", all_exits(net, exits, IMAGES))
    return Policy("confidence", exits, (*(float(sure[:, i].median()) for i in range(3)), None))


@pytest.mark.parametrize("strategy", ["joint", "separate"])
def test_the_host_waits_once_a_stage(strategy: str, nets: Any) -> None:
    net = nets[strategy][0]
    predictor = Predictor(net, half(net))
    with Calls() as calls:
        prediction = predictor(IMAGES)
    assert len(set(prediction.exits.tolist())) == 4
    assert calls.waits == 1 + 3  # whether the pixels are finite; which rows stay


def test_a_single_image_waits_for_its_logits_alone(
    joint: ExitNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought: list[Tensor] = []
    monkeypatch.setattr(module, "_host", lambda x, f=module._host: (brought.append(x), f(x))[1])
    predictor = Predictor(joint, half(joint))
    for row in range(10):
        brought.clear()
        with Calls() as calls:
            exit = int(predictor(IMAGES[row : row + 1]).exits.numpy()[0])
        assert calls.waits <= len(brought) + 1  # reading what is on the host waits for nothing
        assert len(brought) == min(exit, 3)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("name", ["classes", "confidence", "exits", "compute", "logits"])
def test_an_answer_cannot_be_changed_in_place(joint: ExitNetwork, rows: int, name: str) -> None:
    """Of a single image, some of it is the predictor's own."""
    prediction = Predictor(joint, half(joint))(IMAGES[:rows])
    with pytest.raises(RuntimeError, match="Inplace update"):
        getattr(prediction, name).add_(1)


def test_the_count_of_waits_can_fail() -> None:
    with Calls() as calls:
        IMAGES[torch.ones(ROWS, dtype=torch.bool)]
        bool(IMAGES.sum() > 0)
    assert calls.waits >= 2


def test_rows_that_left_are_not_computed(joint: ExitNetwork) -> None:
    predictor = Predictor(joint, half(joint))
    with Calls() as calls:
        prediction = predictor(IMAGES)
    inside = [int((prediction.exits >= k).sum()) for k in (1, 2, 3, 4)]
    assert sorted(set(calls.convolved), reverse=True) == sorted(set(inside), reverse=True)
    assert inside[3] < inside[2] < inside[1] < inside[0] == ROWS


def test_heads_where_nothing_leaves_are_not_run(joint: ExitNetwork, monkeypatch: Any) -> None:
    run: list[int] = []
    for k in (1, 2, 3):
        head = inside(joint).for_inference.heads[k - 1]
        monkeypatch.setattr(head, "forward", lambda x, k=k, f=head.forward: (run.append(k), f(x))[1])
    Predictor(joint, Policy("confidence", (1, 2, 3, 4), (None, 1.0, None, None)))(IMAGES)
    assert run == [2]
    run.clear()
    Predictor(joint, Policy("patience", (1, 2, 3, 4), (None, None, 3.0, None)))(IMAGES)
    assert run == [1, 2, 3]
    run.clear()
    Predictor(joint, Policy("fixed", (1, 2, 3, 4), (None, None, 0.0, None)))(IMAGES)
    assert run == [3]


def test_nothing_is_copied_when_nothing_leaves(joint: ExitNetwork) -> None:
    never, some = Policy("confidence", (1, 2, 3, 4), (1.0, 1.0, 1.0, None)), half(joint)
    with Calls() as calls:
        Predictor(joint, never)(IMAGES)
        assert not calls.packed
        Predictor(joint, some)(IMAGES)
        assert calls.packed == 3


def test_channels_last_is_kept() -> None:
    net = copy.deepcopy(network("digits-cnn")).eval().to(memory_format=torch.channels_last)
    seen = []
    for i in (2, 3, 4):
        segment = inside(net).for_inference.segment(i)
        original = segment._functions[False]

        def noting(root: Any, clock: Any, x: Tensor, original: Any = original) -> Any:
            seen.append((len(x), x.is_contiguous(memory_format=torch.channels_last)))
            return original(root, clock, x)

        segment._functions = {**segment._functions, False: noting}
    policy = half(net)
    seen.clear()
    Predictor(net, policy)(IMAGES.contiguous(memory_format=torch.channels_last))
    assert [last for _, last in seen] == [True] * 3
    assert seen[0][0] < ROWS
    maps = torch.zeros(8, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    lost = maps.index_select(0, torch.arange(4))  # the pitfall that this guards against
    assert not lost.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("strategy", "backend"),
    [pytest.param("joint", "aot_eager", marks=pytest.mark.long), ("separate", "eager")],
)
def test_compiled_stages_answer_alike(strategy: str, backend: str, nets: Any) -> None:
    net, exits = nets[strategy][0], (1, 4)
    logits = all_exits(net, exits, IMAGES)
    sure = scoring.scores("confidence", logits)[:, 0]
    policy = Policy("confidence", exits, (above(sure, ROWS // 2), None))
    torch._dynamo.reset()
    predictor = Predictor(net, policy, backend)
    for rows in (ROWS, 20, 1, 9):
        check(policy, predictor(IMAGES[:rows]), logits[:rows])


@pytest.mark.long
def test_no_stage_is_compiled_at_the_expense_of_another(joint: ExitNetwork) -> None:
    """torch gives up on a function that was compiled too often, and runs it eagerly."""
    torch._dynamo.reset()
    policy = Policy("confidence", (1, 2, 3, 4), (1.0, 1.0, 1.0, None))
    with torch._dynamo.config.patch(recompile_limit=3, fail_on_recompile_limit_hit=True):
        predictor = Predictor(joint, policy, "eager")
        for rows in (ROWS, 9, 1):
            predictor(IMAGES[:rows])


def test_under_autocast(joint: ExitNetwork) -> None:
    policy = half(joint)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = Predictor(joint, policy)(IMAGES)
        logits = all_exits(joint, policy.exits, IMAGES).float()
    assert prediction.logits.dtype == torch.float32
    same = prediction.exits == torch.tensor(policy.exits)[policy.leaves(logits)]
    assert same.float().mean() > 0.9  # bfloat16 rounds differently in smaller batches


def test_inside_inference_mode_and_with_gradients_on(joint: ExitNetwork) -> None:
    policy = half(joint)
    with torch.inference_mode():
        inside = Predictor(joint, policy)(IMAGES)
    assert torch.equal(inside.classes, Predictor(joint, policy)(IMAGES).classes)
    assert not inside.logits.requires_grad


def test_compute_is_the_share_of_the_plain_network(nets: Any) -> None:
    for strategy in ("joint", "separate"):
        net, exits = nets[strategy]
        policy = half(net)
        prediction = Predictor(net, policy)(IMAGES)
        plain = sum(net.macs(part) for part in backbone(net.exits))
        alone = dict(zip(exits, policy.macs(costs_of(net, exits)), strict=True))
        expected = [alone[int(k)] / plain for k in prediction.exits]
        np.testing.assert_allclose(prediction.compute.numpy(), expected, rtol=1e-6)
    assert max(expected) > 1.5  # four trunks, one after another


def costs_of(net: ExitNetwork, exits: tuple[int, ...]) -> Any:
    from offramp.study.trained import network_costs

    return network_costs(net, list(inside(net).trunk_of), list(exits))


def test_forced_exits_for_measurements(joint: ExitNetwork) -> None:
    policy = half(joint)
    places = torch.arange(ROWS) % 4
    prediction = Predictor(joint, policy)(IMAGES, places)
    assert torch.equal(prediction.exits, places + 1)
    for place in range(4):
        single = Predictor(joint, policy)(IMAGES[:1], torch.tensor([place]))
        assert single.exits.tolist() == [place + 1]


def test_logits_that_are_no_numbers(joint: ExitNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    images = IMAGES.clone()
    images[3] = float("nan")  # as an overflow in the network would be
    predictor = Predictor(joint, Policy("confidence", (1, 2, 3, 4), (0.01, 0.01, 0.01, None)))
    with monkeypatch.context() as patched:
        patched.setattr(module, "check_finite", lambda _: None)
        prediction = predictor(images)
    assert prediction.exits.tolist() == [4 if row == 3 else 1 for row in range(ROWS)]
    assert prediction.confidence[3].isnan() and not prediction.confidence[2].isnan()
    images[3] = 0
    for value in (float("nan"), float("inf")):
        images[5, 0, 2, 3] = value
        for rows in (images, images[5:6]):
            refuses(f"image {5 % len(rows)} has NaN", predictor, rows)


@given(
    st.lists(st.floats(-60, 60, width=32), min_size=2, max_size=9),
    st.sampled_from(list(SCORES)),
    st.floats(0.2, 5),
    st.floats(-3e-4, 3e-4),
)
@settings(max_examples=150, deadline=None)
def test_a_single_image_is_decided_as_the_scores_say(
    joint: ExitNetwork, row: list[float], score: str, warmth: float, beside: float
) -> None:
    logits = torch.tensor([row])
    gates = gates_of(score, 1)
    gate = None if gates is None else gates[0]
    exact = float(scoring.score(score, logits, warmth, gate=gate)[0])
    threshold = min(max(exact + beside, 0.0), 1.0)
    policy = Policy(score, (1, 4), (threshold, None), (warmth, 1.0), gates=gates)
    leaves, _ = Predictor(joint, policy)._leaving(0, logits, None)
    assert bool(leaves[0]) == bool(scoring.score(score, logits, warmth, gate=gate)[0] >= threshold)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_a_single_image_with_odd_logits(joint: ExitNetwork, odd: float) -> None:
    logits = torch.tensor([[0.3, odd, 0.1]])
    for score in SCORES:
        gates = gates_of(score, 1)
        predictor = Predictor(joint, Policy(score, (1, 4), (0.0, None), gates=gates))
        sure = scoring.score(score, logits, gate=None if gates is None else gates[0])[0]
        assert bool(predictor._leaving(0, logits, None)[0][0]) == bool(sure >= 0)
    answer = predictor._answer(logits, 1.0)
    assert torch.equal(answer[0], scoring.answers(logits))
    expected = scoring.probabilities(logits).amax(dim=-1)
    torch.testing.assert_close(answer[1], expected, equal_nan=True)


@pytest.mark.parametrize("over", [(0, 1, 2, 3), (0, 1, 3)], ids=["no rows", "as many rows as images"])
def test_a_tap_without_rows_of_images_is_named(over: tuple[int, ...]) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            shades = x.mean(over)  # of all images together: one, or [8]
            y = self.first(x)
            return self.last(y.mean((2, 3)) * shades.sum())

    net = attach(Odd(), exits=["first"], input_shape=(1, 8, 8)).eval()
    images = IMAGES[:8]
    sure = scoring.scores("confidence", all_exits(net, (1, 2), images))[:, 0]
    policy = Policy("confidence", (1, 2), (above(sure, 3), None))
    refuses("a batch dimension", Predictor(net, policy), images)
    tap = Point("tap", 1)
    values = compute(net, {IMAGE: (images,)}, tap)
    refuses("a batch dimension", join, net, tap, [values], len(images))


@pytest.mark.parametrize(
    ("images", "token"),
    [
        (torch.zeros(2, 1, 9, 8), r"\[2, 1, 9, 8\]"),
        (torch.zeros(1, 8, 8), "takes"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "normalize"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.float16), "float16 .* torch.float32"),
        (np.zeros((2, 1, 8, 8), np.float32), "a ndarray"),
    ],
)
def test_other_images_are_refused(joint: ExitNetwork, images: Tensor, token: str) -> None:
    refuses(token, Predictor(joint, half(joint)), images)


def test_a_network_of_another_precision_says_what_it_is(
    joint: ExitNetwork, snapshot: SnapshotAssertion
) -> None:
    net = copy.deepcopy(joint).half()
    for some in (IMAGES, IMAGES[:1]):
        assert refusal(Predictor(net, half(joint)), some) == snapshot
    assert Predictor(net, half(joint))(IMAGES.half()).logits.dtype == torch.float32


def test_other_networks_are_refused(joint: ExitNetwork) -> None:
    refuses("exit 5", Predictor, joint, Policy("confidence", (1, 5), (0.5, None)))
    refuses("train mode", Predictor, copy.deepcopy(joint).train(), half(joint))
    net = copy.deepcopy(joint)
    predictor = Predictor(net, half(joint))
    net.train()
    refuses("train mode", predictor, IMAGES)
    refuses("no compiler", Predictor, joint, half(joint), "inducer")


def test_a_policy_for_exits_that_answer_alone_does_not_fit_others(nets: Any) -> None:
    net, exits = nets["boosted"]
    rule = Policy("confidence", exits, (0.5, 0.5, 0.5, None))
    refuses(r"network carry 0\.5", Predictor, net, rule)
    assert replace(rule, thresholds=(None, None, 0.9, None), carry=0.5).active == (0, 1, 2, 3)


@pytest.mark.parametrize("strategy", ["boosted", "cascade", "imta"])
def test_exits_that_carry_answers_on_are_not_left_out(strategy: str, nets: Any) -> None:
    net, exits = nets[strategy]
    carry = inside(net).carry
    learned = isinstance(carry, str)
    for some in ((1, 3), (2, 4), (3,), *(((1, 2, 3),) if learned else ())):
        rule = Policy("confidence", some, (*(0.5,) * (len(some) - 1), None), carry=carry)
        refuses("name all exits", Predictor, net, rule)
    for some in (exits, (4,) if learned else (1, 2)):
        rule = Policy("confidence", some, (None,) * len(some), carry=carry)
        torch.testing.assert_close(
            Predictor(net, rule)(IMAGES).logits, all_exits(net, some, IMAGES)[:, -1]
        )


def test_a_policy_of_learned_answers_asks_the_heads_before_and_the_final_exit_alone(
    nets: Any, snapshot: SnapshotAssertion
) -> None:
    net, exits = nets["cascade"]
    alone, rule = (
        Policy("confidence", exits, (None, 0.5, None, None), carry=c) for c in (0.0, "learned")
    )
    assert refusal(Predictor, net, alone) == snapshot
    assert alone.active == (1, 3) and rule.active == (0, 1, 3)
    assert replace(rule, thresholds=(None,) * 4).active == (3,)
    assert replace(rule, thresholds=(None, 0.0, 0.5, None)).active == (0, 1)
    assert refusal(Predictor, nets["joint"][0], rule) == snapshot
    # The control: heads that are not told the answer before say something else.
    own = all_exits(net.carrying(0.0), exits, IMAGES)
    theirs = all_exits(net, exits, IMAGES)
    assert torch.equal(own[:, [0, 3]], theirs[:, [0, 3]])
    assert not torch.allclose(own[:, 1], theirs[:, 1], atol=1e-3)
    assert not torch.allclose(own[:, 2], theirs[:, 2], atol=1e-3)
