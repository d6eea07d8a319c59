"""The module of a phase under PyTorch's own wrappers, and the network after a phase."""

import hashlib
import io
import pickle
import signal
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from longer import long_where
from offramp import attach, early_exit_loss, multi_exit, program
from offramp.device import seeded
from offramp.engine.loop import LoopPhase
from offramp.engine.losses import sample_weights
from offramp.errors import OfframpError, OfframpWarning
from offramp.nets import ExitNetwork
from offramp.nets.foreign import MultiExit
from offramp.parts import backbone, head, heads, segments
from offramp.phase import CE, KD, LIVE, Gated, Gates, Init, Phase, Survivors, Unsolved
from offramp.strategies import STRATEGIES
from wording import refusal

SHAPE = (1, 8, 8)
CLASSES = 5


def layer(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())


class OwnExits(nn.Module):
    """A network with exits of its own, of the very layers that `attached` has."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([layer(1), layer(6), layer(6)])
        self.heads = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES)) for _ in range(3)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        answers = []
        for own, classifier in zip(self.layers, self.heads, strict=True):
            x = own(x)
            answers.append(classifier(x))
        return answers


def attached() -> ExitNetwork:
    with seeded(0):
        module = nn.Sequential(layer(1), layer(6), layer(6), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        module.append(nn.Linear(6, CLASSES))
    return attach(module, ["0", "1"], SHAPE, head="linear")


def batches(count: int = 3, rows: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    draw = torch.randint(0, CLASSES, (count, rows), generator=generator)
    return [(torch.randn(rows, *SHAPE, generator=generator) + y.view(-1, 1, 1, 1), y) for y in draw]


def stepped(
    phase: LoopPhase, wrap: Callable[[Any], Any] = lambda module: module, count: int = 3
) -> torch.optim.Optimizer:
    """Some steps of an entered phase."""
    model = wrap(phase.module)
    optimizer = torch.optim.SGD(phase.groups(0.05), momentum=0.9)
    for images, labels in batches(count):
        loss = model(images, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return optimizer


def hashes(net: nn.Module) -> dict[str, str]:
    tensors = net.state_dict().items()
    return {n: hashlib.sha256(t.detach().numpy().tobytes()).hexdigest() for n, t in tensors}


def differing(some: nn.Module, other: nn.Module) -> set[str]:
    one, two = hashes(some), hashes(other)
    assert one.keys() == two.keys()
    return {name for name in one if one[name] != two[name]}


# What changes


@pytest.mark.parametrize("strategy", ["two-stage", "branch-wise", "joint-branch", "cascade"])
def test_frozen_tensors_stay_buffers_too(strategy: str) -> None:
    net = attached()
    for phase in program(net, strategy):
        with phase:
            before = hashes(net)
            stepped(phase)
            learned = set(phase.module.learned())
        after = hashes(net)
        assert {name for name in before if before[name] != after[name]} == learned
        assert learned < before.keys() or phase.name == "joint"


def test_a_phase_leaves_the_network_as_it_was_but_for_what_trained() -> None:
    net = attached()
    first = program(net, "joint")[0]
    with first:
        assert all(p.requires_grad for p in net.parameters()) and net.training is False
        assert net.get_submodule("0.1").training  # BatchNorm learns its statistics
        stepped(first)
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not any(module.training for module in net.modules())
    assert len(net(batches()[0][0])) == 3


@pytest.mark.parametrize(
    "error", [ValueError("a bad batch"), KeyboardInterrupt()], ids=["error", "ctrl-c"]
)
def test_an_exception_says_in_what_state_it_leaves_the_network(error: BaseException, snapshot) -> None:
    net = attached()
    with pytest.raises(type(error)) as caught:
        for phase in program(net, "two-stage"):
            with phase:
                stepped(phase)
                if phase.name == "exit 1":
                    raise error
    assert caught.value.__notes__ == snapshot
    assert not any(module.training for module in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    phase = program(net, "joint")[0]  # which goes on with it
    with phase:
        stepped(phase)


def test_ctrl_c_counts_when_the_network_is_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal within the block, and one that comes while the phase is being entered."""
    net = attached()
    (phase,) = program(net, "joint")
    with pytest.raises(KeyboardInterrupt) as caught, phase:
        stepped(phase, count=2)
        signal.raise_signal(signal.SIGINT)
    assert "left after 2 batches" in caught.value.__notes__[0] and phase.state == "left"
    (phase,) = program(net, "joint")
    begins = LoopPhase._begin

    def interrupted(self: LoopPhase) -> None:
        signal.raise_signal(signal.SIGINT)
        begins(self)

    with monkeypatch.context() as patched:
        patched.setattr(LoopPhase, "_begin", interrupted)
        with pytest.raises(KeyboardInterrupt), phase:
            raise AssertionError("the block runs")
    assert phase.state == "left" and all(p.requires_grad for p in net.parameters())
    assert not any(module.training for module in net.modules())


def test_leaving_early_is_leaving() -> None:
    net = attached()
    for phase in program(net, "two-stage"):
        with phase:
            stepped(phase, count=1)
            if phase.number == 1:
                break
    assert phase.state == "left" and all(p.requires_grad and p.grad is None for p in net.parameters())
    with program(net, "two-stage", options={"backbone": "kept"})[0] as again:
        stepped(again)


def test_gradients_of_half_batches_add_up() -> None:
    nets = attached(), attached()
    images, labels = batches()[0]
    for net, parts in zip(nets, (1, 2), strict=True):
        net.get_submodule("0.1").momentum = net.get_submodule("1.1").momentum = 0.0
        phase = program(net, "distillation", options={"backbone": "kept"})[0]  # BatchNorm is frozen
        with phase:
            optimizer = torch.optim.SGD(phase.parameters(), lr=0.1)
            for part in range(parts):
                rows = slice(part, None, parts)
                (phase.module(images[rows], labels[rows]) / parts).backward()
            torch.nn.utils.clip_grad_norm_(phase.parameters(), 0.1)
            optimizer.step()
    for name, tensor in nets[0].state_dict().items():
        torch.testing.assert_close(tensor, nets[1].state_dict()[name])


@pytest.mark.parametrize(
    ("strategy", "options", "number"),
    [
        ("distillation", {}, 1),
        ("self-distillation", {}, 0),
        ("separate", {}, 1),
        ("sequential", {"keep": 10.0}, 1),
        ("joint-two-stage", {}, 2),
        ("gated", {}, 1),
        ("imta", {}, 1),
    ],
)
def test_a_phase_goes_on_from_a_checkpoint(strategy: str, options: dict[str, Any], number: int) -> None:
    """Teacher and adapters come with the phase; the rest is PyTorch's."""

    def again(phase: LoopPhase, optimizer: torch.optim.Optimizer) -> None:
        for images, labels in batches():
            optimizer.zero_grad()
            phase.module(images, labels).backward()
            optimizer.step()

    whole, saved = attached(), io.BytesIO()
    for phase in program(whole, strategy, options=options)[: number + 1]:
        with phase:
            optimizer = stepped(phase)
            if phase.number == number:
                torch.save([whole.state_dict(), phase.state_dict(), optimizer.state_dict()], saved)
                again(phase, optimizer)
    saved.seek(0)
    of_net, of_phase, of_optimizer = torch.load(saved, weights_only=True)
    net = attached()  # of another process
    phase = program(net, strategy, options=options)[number]
    phase.load_state_dict(of_phase)
    net.load_state_dict(of_net)
    with phase:
        optimizer = torch.optim.SGD(phase.groups(0.05), momentum=0.9)
        optimizer.load_state_dict(of_optimizer)
        again(phase, optimizer)
    assert differing(net, whole) == set()


# Labels


def test_soft_labels_are_means_of_hard_ones() -> None:
    """Of a label that is half of one class, the loss is half of that class's: in every term."""
    logits = {k: torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(k)) for k in (1, 2, 3)}
    labels = torch.arange(8) % CLASSES
    other = labels.roll(1)
    hot, cold = (F.one_hot(y, CLASSES).float() for y in (labels, other))
    terms = (CE(1), KD(1, teacher_exit=3), CE(3, weight=0.3))
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])
    for settings in ({}, {"label_smoothing": 0.1}, {"class_weights": weights, "label_smoothing": 0.1}):
        hard = early_exit_loss(terms, logits, labels, **settings)
        same = early_exit_loss(terms, logits, hot, **settings)
        torch.testing.assert_close(same, hard)
        mixed = early_exit_loss(terms, logits, 0.3 * hot + 0.7 * cold, **settings)
        mean = 0.3 * hard + 0.7 * early_exit_loss(terms, logits, other, **settings)
        torch.testing.assert_close(mixed, mean)
    for kind in (Unsolved(), Unsolved(hard=False), Survivors()):
        own = list(logits.values())
        torch.testing.assert_close(sample_weights(kind, own, hot), sample_weights(kind, own, labels))


@pytest.mark.parametrize("strategy", ["gated", "confidence-gated", "joint", "self-distillation"])
def test_one_hot_labels_train_as_class_numbers_do(strategy: str) -> None:
    nets = attached(), attached()
    images, labels = batches()[0]
    for net, own in zip(nets, (labels, F.one_hot(labels, CLASSES).float()), strict=True):
        for phase in program(net, strategy, label_smoothing=0.1, class_weights=torch.ones(CLASSES)):
            with phase:
                phase.module(images, own).backward()
                torch.optim.SGD(phase.parameters(), lr=0.1).step()
    for name, tensor in nets[0].state_dict().items():
        torch.testing.assert_close(tensor, nets[1].state_dict()[name])


def test_the_pure_loss_is_that_of_the_phase() -> None:
    net = attached()
    phase = program(net, "confidence-gated")[0]
    images, labels = batches()[0]
    with phase:
        answers = phase.module(images)
        loss = phase.module.loss(answers, labels)
        assert torch.equal(loss, phase.module(images, labels))
        assert torch.equal(loss, early_exit_loss(phase.declaration, answers["logits"], labels))
        assert phase.exit_losses().keys() == {1, 2, 3}
        entropy = F.cross_entropy(answers["logits"][2], labels).item()
        assert phase.exit_losses()[2] == pytest.approx(entropy)
        phase.parameters()[0].data.add_(1)


# Wrappers


@pytest.mark.parametrize(
    "strategy",
    long_where(STRATEGIES, lambda name: name not in ("joint", "gated")),
)
# Of PyTorch's own tracing of an autograd.Function, and of what it makes of a cache.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("error:.*trained nothing")
@pytest.mark.skipif(torch.__version__ < "2.13", reason="older compilers break the graph")
def test_the_module_compiles_as_one_graph(strategy: str) -> None:
    nets = attached(), attached()
    torch._dynamo.reset()
    compiled = partial(torch.compile, fullgraph=True, backend="eager")
    for net, wrap in zip(nets, (lambda module: module, compiled), strict=True):
        for phase in program(net, strategy):
            with phase:
                stepped(phase, wrap, count=1)
    assert differing(*nets) == set()


def test_autocast_in_bfloat16() -> None:
    net = attached()
    images, labels = batches()[0]
    phase = program(net, "joint")[0]
    with phase:
        full = phase.module(images, labels).item()
        with torch.autocast("cpu", torch.bfloat16):
            loss = phase.module(images, labels)
        loss.backward()
        assert loss.dtype == torch.float32 and loss.item() == pytest.approx(full, rel=0.02)
        assert loss.item() != full
        torch.optim.SGD(phase.parameters(), lr=0.1).step()


def test_activation_checkpointing_gives_the_same_gradients() -> None:
    nets = attached(), attached()

    def recomputed(module: Any) -> Callable[..., Tensor]:
        return lambda *batch: checkpoint(module, *batch, use_reentrant=False)

    for net, wrap in zip(nets, (lambda m: m, recomputed), strict=True):
        phase = program(net, "two-stage")[1]  # BatchNorm is frozen: it would see each batch twice
        phase._course.left["backbone"] = {}
        with phase:
            stepped(phase, wrap)
    assert differing(*nets) == set()


def test_modules_inside_recompute_what_they_compute() -> None:
    nets = attached(), attached()
    for net, inner in zip(nets, (False, True), strict=True):
        for name in ("0.0", "1.0") if inner else ():
            layer = net.get_submodule(name)
            forward = layer.forward
            layer.forward = partial(checkpoint, forward, use_reentrant=False)
        with program(net, "joint")[0] as phase:
            stepped(phase)
    assert differing(*nets) == set()


def test_a_copy_of_the_module_is_a_network_of_its_own() -> None:
    net = attached()
    phase = program(net, "distillation", options={"backbone": "kept"})[0]
    with phase:
        average = torch.optim.swa_utils.AveragedModel(phase.module)
        stepped(phase)
        average.update_parameters(phase.module)
        assert average.module.net is not net
        assert differing(average.module.net, net) == set()


def test_a_module_that_moves_takes_its_teacher_along() -> None:
    phase = program(attached(), "distillation", options={"backbone": "kept"})[0]
    with phase:
        moved = phase.module.double()
        images, labels = batches()[0]
        moved(images.double(), labels).backward()
        phase.parameters()[0].data.add_(1)
        phase.module.float()


# Networks with exits of their own

OTHER_NETWORKS = (
    *("separate", "boosted", "cascade", "gated", "imta"),  # which give a network more than it has
    *("self-distillation", "exit-ensemble"),  # which read features
)


@pytest.mark.parametrize("strategy", [n for n in STRATEGIES if n not in OTHER_NETWORKS])
def test_a_foreign_network_trains_as_an_attached_one(strategy: str) -> None:
    net = attached()
    theirs = OwnExits()
    own = net.state_dict()
    *layers, weight, bias = (name for name in own if name not in net.head_keys)
    pairs = dict(zip(theirs.state_dict(), (*layers, *net.head_keys, weight, bias), strict=True))
    theirs.load_state_dict({name: own[pair] for name, pair in pairs.items()})
    for each in (net, multi_exit(theirs, SHAPE)):
        for phase in program(each, strategy):
            if Init.FRESH in phase.declaration.starts.values():
                continue  # which both draw, but not alike
            with phase:
                stepped(phase)
    for name, pair in pairs.items():
        torch.testing.assert_close(theirs.state_dict()[name], net.state_dict()[pair], msg=name)


def test_a_foreign_head_is_drawn_anew() -> None:
    theirs = OwnExits()
    before = hashes(theirs)
    phase = program(multi_exit(theirs, SHAPE), "joint-two-stage")[1]
    with phase:
        changed = {n for n, h in hashes(theirs).items() if h != before[n]}
        assert changed == {"heads.0.2.weight", "heads.0.2.bias"}
        stepped(phase)
    assert not any(module._forward_pre_hooks for module in theirs.modules())


# What is refused


def gates(exits: int) -> tuple[Phase, ...]:
    loss = (CE(1), Gates(tuple(range(1, exits + 1))))
    return (Phase("g", heads(1, exits), loss, sample_weights=Gated()),)


def twice(exits: int) -> tuple[Phase, ...]:
    own = Phase("own", head(1), (CE(1),), trunk=1)
    return (Phase("all", segments(1, exits) | heads(1, exits), (CE(1), CE(exits))), own)


def frozen_part() -> ExitNetwork:
    net = attached()
    net.get_submodule("1").requires_grad_(False)
    return net


def frozen_exits() -> MultiExit:
    theirs = OwnExits()
    theirs.layers[1].requires_grad_(False)
    return multi_exit(theirs, SHAPE)


BEFORE_TRAINING = {
    "a-plain-module": lambda: program(OwnExits(), "joint"),
    "no-network": lambda: program("resnet18", "joint"),
    "unknown-strategy": lambda: program(attached(), "jont"),
    "unknown-option": lambda: program(attached(), "joint", options={"weights": 1}),
    "no-strategy": lambda: program(attached(), 3),
    "frozen-by-the-user": lambda: program(frozen_part(), "joint"),
    "fresh-backbone": lambda: program(
        attached(), lambda k: (Phase("a", backbone(k), (CE(k),), init={backbone(k): Init.FRESH}),)
    ),
    "too-much-smoothing": lambda: program(attached(), "joint", label_smoothing=1.0),
    "weights-of-other-classes": lambda: program(attached(), "joint", class_weights=torch.ones(3)),
    "head-on-two-trunks": lambda: program(attached(), twice),
    "foreign-frozen-by-the-user": lambda: program(frozen_exits(), "joint"),
    "foreign-trunks": lambda: program(multi_exit(OwnExits(), SHAPE), "separate"),
    "foreign-carry": lambda: program(multi_exit(OwnExits(), SHAPE), "boosted"),
    "foreign-gates": lambda: program(multi_exit(OwnExits(), SHAPE), gates),
    "foreign-features": lambda: program(multi_exit(OwnExits(), SHAPE), "self-distillation"),
}


def entered_twice() -> None:
    first, *_ = program(attached(), "joint")
    with first:
        stepped(first)
    with first:
        pass


def two_at_once() -> None:
    first, second, *_ = program(attached(), "two-stage")
    with first, second:
        pass


def without_teacher() -> None:
    _, second, *_ = program(attached(), "distillation")
    with second:
        pass


def other_state() -> None:
    first, second, *_ = program(attached(), "two-stage")
    second.load_state_dict(first.state_dict())


def outside() -> None:
    (phase,) = program(attached(), "joint")
    with phase:
        module = phase.module
        stepped(phase)
    module(*batches()[0])


def in_phase(act: Callable[[LoopPhase, ExitNetwork], Any], strategy: Any = "two-stage") -> None:
    net = attached()
    phase, *_ = program(net, strategy)
    with phase:
        act(phase, net)


def other_optimizer(phase: LoopPhase, net: ExitNetwork) -> None:
    phase.module(*batches()[0]).backward()
    torch.optim.SGD(net.head_parameters(), lr=0.1).step()


def writes_on_frozen(phase: LoopPhase, net: ExitNetwork) -> None:
    stepped(phase)
    net.head_parameters()[0].data.add_(1)


def diverges(phase: LoopPhase, net: ExitNetwork) -> None:
    stepped(phase)
    next(iter(net.parameters())).data.fill_(float("nan"))


IMAGES, LABELS = batches()[0]
BELOW = F.one_hot(LABELS, CLASSES) * 1.5 - 0.5 / CLASSES * torch.ones(CLASSES)  # they add up to 1
IN_USE = {
    "twice": entered_twice,
    "two-at-once": two_at_once,
    "no-teacher": without_teacher,
    "state-of-another": other_state,
    "outside": outside,
    "not-entered": lambda: program(attached(), "joint")[0].module,
    "eval-mode": lambda: in_phase(lambda p, net: (net.eval(), p.module(IMAGES, LABELS))),
    "train-mode": lambda: in_phase(lambda p, net: (net.train(), p.module(IMAGES, LABELS))),
    "unknown-label": lambda: in_phase(lambda p, _: p.module(IMAGES, LABELS.clone().fill_(CLASSES))),
    "ignored-label": lambda: in_phase(lambda p, _: p.module(IMAGES, LABELS.clone().fill_(-100))),
    "no-shares": lambda: in_phase(lambda p, _: p.module(IMAGES, torch.ones(8, CLASSES))),
    "negative-shares": lambda: in_phase(lambda p, _: p.module(IMAGES, BELOW)),
    "NaN-shares": lambda: in_phase(lambda p, _: p.module(IMAGES, BELOW.log())),
    "labels-of-another-batch": lambda: in_phase(lambda p, _: p.module(IMAGES, LABELS[:3])),
    "another-optimizer": lambda: in_phase(other_optimizer),
    "frozen-changed": lambda: in_phase(writes_on_frozen),
    "not-finite": lambda: in_phase(diverges),
    "pickled": lambda: pickle.dumps(attached()),
}


REFUSED = BEFORE_TRAINING | IN_USE


@pytest.mark.parametrize("act", REFUSED.values(), ids=REFUSED)
def test_what_cannot_train_is_refused(act: Callable[[], object], snapshot) -> None:
    assert refusal(act) == snapshot


def test_steps_in_eval_mode_are_told() -> None:
    (phase,) = program(attached(), "joint")
    with phase, warnings.catch_warnings():
        warnings.simplefilter("error")
        stepped(phase)
        phase.module.eval()
        with torch.no_grad():
            phase.module(IMAGES, LABELS)  # a validation loss
        with pytest.raises(OfframpWarning, match="in eval mode, and steps on this loss leave"):
            phase.module(IMAGES, LABELS)
        phase.module.train()
        half = F.one_hot(LABELS, CLASSES).bfloat16() * 0.7 + F.one_hot(LABELS.roll(1), CLASSES) * 0.3
        stepped(phase, lambda module: lambda images, _: module(images, half))


def test_after_a_refusal_the_network_is_usable() -> None:
    net = attached()
    first, *_ = program(net, "two-stage")
    before = hashes(net)
    with pytest.raises(OfframpError), first:
        first.module(IMAGES, LABELS.clone().fill_(CLASSES))
    assert hashes(net) == before and all(p.requires_grad for p in net.parameters())


LOGITS = [torch.zeros(8, CLASSES)] * 2


@pytest.mark.parametrize(
    "arguments",
    [
        ((CE(3),), LOGITS, LABELS),
        ((KD(1, teacher_exit=3),), LOGITS, LABELS, LOGITS),
        ((CE(1), Gates((1, 2))), LOGITS, LABELS),
        (Phase("s", head(1), (KD(1, 2),), teacher="t"), LOGITS, LABELS),
        ((CE(1), CE(2)), [torch.zeros(8, CLASSES), torch.zeros(4, CLASSES)], LABELS),
        ((CE(1), CE(2)), [torch.zeros(8, CLASSES), torch.zeros(8, CLASSES + 1)], LABELS),
        ((CE(1), KD(1, 2)), LOGITS, LABELS, [torch.zeros(8, CLASSES + 1)] * 2),
    ],
    ids=["exit", "teacher", "more-than-logits", "no-teacher", "images", "classes", "of-teacher"],
)
def test_the_pure_loss_refuses_what_is_not_there(arguments: Any, snapshot) -> None:
    assert refusal(early_exit_loss, *arguments) == snapshot


def test_a_live_teacher_is_the_same_logits() -> None:
    logits = [t.clone().requires_grad_() for t in torch.randn(2, 8, CLASSES)]
    phase = Phase("p", head(1), (KD(1, 2),), teacher=LIVE)
    early_exit_loss(phase, logits, LABELS).backward()
    assert logits[0].grad is not None and logits[1].grad is None


def test_a_phase_says_what_it_is(snapshot) -> None:
    lines = [repr(phase) for phase in program(attached(), "joint-branch")]
    assert lines == snapshot
    shares = [phase.share for phase in program(attached(), "joint-branch")]
    assert shares == [pytest.approx(1 / 3)] * 3
