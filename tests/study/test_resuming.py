"""Runs that are cut short go on and end in the same bits."""

import errno
import math
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from kit import (
    STRATEGIES,
    check_equal,
    check_sound,
    check_tidy,
    conduct,
    finish,
    hashes,
    locks_free,
    reused,
    trained,
)
from running_kit import by_phase, small_plan

from disks import flip
from longer import long
from offramp.engine import fit as engine_fit
from offramp.engine.tally import Tally
from offramp.engine.trainee import Trainee, pack
from offramp.meters.meter import Meter
from offramp.store.store import Store
from offramp.study.plan.plan import Plan
from offramp.study.run.events import Epoch, GroupStarted
from offramp.study.run.run import Run, pause_after, run
from refusal import refuses
from support import CPU, tiny_plan, tiny_study

# A run that is cut short goes on, and ends in the same bits.

FUSED = ("two-stage",)


def interrupted(plan: Plan, store: Store, after: int) -> bool:
    """Whether Ctrl-C came, while the run told its `after`-th event; else the run ended."""
    running = run(plan, store, conduct(store.root, checkpoint_seconds=0))
    for number, _ in enumerate(running, start=1):
        if number == after:
            with pytest.raises(KeyboardInterrupt):
                running.throw(KeyboardInterrupt)
            return True
    return False


@pytest.mark.parametrize(
    ("recipe", "strategies"),
    [
        ("lookahead", ("joint-branch",)),
        *long(*((recipe, STRATEGIES) for recipe in ("lookahead", "adam", "patience"))),
    ],
)
def test_interrupted_again_and_again_a_run_ends_in_the_same_bits(
    tmp_path: Path, recipe: str, strategies: tuple[str, ...]
) -> None:
    plan = small_plan(recipe, strategies)
    whole, _ = finish(plan, tmp_path / "whole")
    store, threads, after = Store(tmp_path / "cut"), torch.get_num_threads(), 1
    while interrupted(plan, store, after):  # one event later each time
        after += 1
        assert locks_free(plan, store), after
        assert not list((store.root / "caches").glob("*"))
        assert torch.get_num_threads() == threads
        assert not torch.are_deterministic_algorithms_enabled()
        check_sound(store)
    assert after > 5
    check_equal(whole, store)
    check_tidy(store)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The smaller plan with averaged weights, run without a stop."""
    return finish(small_plan("lookahead", FUSED), tmp_path_factory.mktemp("whole"))[0]


ENDS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
# What is at work when the signal comes, and for which time: training, validation, the closing pass, or
# what puts weights in place for that and, the second time, after it.
POINTS = [
    *(("step", 8), ("evaluate", 4), ("restore", 2)),
    *long(("step", 1), ("step", 21), ("evaluate", 2), ("evaluate", 9), ("restore", 1)),
]


@pytest.fixture
def hanging_up_ends_it() -> Iterator[None]:
    """As where nobody started these tests with `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hanging_up_ends_it")
@pytest.mark.parametrize(("what", "call"), POINTS)
def test_interrupted_within_an_epoch_no_step_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Store, what: str, call: int
) -> None:
    plan, number = small_plan("lookahead", FUSED), ENDS[call % 3]
    calls, before = Counter[str](), {n: signal.getsignal(n) for n in ENDS}

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def counts(*args: Any) -> Any:
            calls[name] += 1
            if (name, calls[name]) == (what, call):
                signal.raise_signal(number)
            return original(*args)

        return counts

    for name in ("step", "evaluate", "restore"):
        monkeypatch.setattr(engine_fit, name, counted(name, getattr(engine_fit, name)))
    with pytest.raises(KeyboardInterrupt):
        finish(plan, tmp_path / "cut", checkpoint_seconds=1e9)
    assert {n: signal.getsignal(n) for n in ENDS} == before
    assert locks_free(plan, Store(tmp_path / "cut"))
    store, _ = finish(plan, tmp_path / "cut")
    check_equal(whole, store)
    check_tidy(store)
    steps = sum(math.ceil(len(plan.data.train) / n.recipe.batch_size) * 3 for n in plan.nodes.values())
    assert calls["step"] == steps


@pytest.mark.parametrize(("of", "name", "call"), [(Store, "try_lock", 3), (Meter, "rest", 1)])
def test_interrupted_before_phases_are_trained_their_locks_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: type, name: str, call: int
) -> None:
    """While they are claimed, and before the first: in a notebook the next run would wait for them as
    long as its process lives."""
    plan, original, calls = tiny_plan(tiny_study(["two-stage"])), getattr(of, name), Counter[str]()

    def interrupted(*args: Any) -> Any:
        calls[name] += 1
        if calls[name] == call:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(of, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            finish(plan, tmp_path)
    assert locks_free(plan, Store(tmp_path))


def test_a_generator_that_nobody_reads_on_lets_go(tmp_path: Path) -> None:
    plan, store = small_plan(), Store(tmp_path)
    running = run(plan, store, conduct(tmp_path))
    next(e for e in running if isinstance(e, Epoch))
    assert not locks_free(plan, store)
    running.close()
    assert locks_free(plan, store)


def test_a_resumed_phase_goes_on_after_its_last_checkpoint(tmp_path: Path) -> None:
    plan, store = small_plan("momentum", FUSED), Store(tmp_path)
    running = run(plan, store, conduct(tmp_path, checkpoint_seconds=0))
    epochs = (e.report.epoch for e in running if isinstance(e, Epoch))
    assert next(epoch for epoch in epochs if epoch == 2) == 2
    killed = shutil.copytree(tmp_path, tmp_path.with_name("killed"))  # before the second checkpoint
    running.close()
    for root, epoch in ((killed, 1), (tmp_path, 2)):
        _, events = finish(plan, root)
        assert next(e for e in events if isinstance(e, GroupStarted)).epoch == epoch


def test_without_checkpoints_a_cut_phase_starts_over(tmp_path: Path, whole: Store) -> None:
    plan = small_plan("lookahead", FUSED)
    running = run(
        plan, Store(tmp_path / "at work"), conduct(tmp_path / "at work", checkpoint_seconds=1e9)
    )
    next(e for e in running if isinstance(e, Epoch) and e.report.epoch == 2)
    store = Store(shutil.copytree(tmp_path / "at work", tmp_path / "cut"))  # as if killed
    running.close()
    assert not list((tmp_path / "cut" / "work").glob("*/*"))
    _, events = finish(plan, tmp_path / "cut", checkpoint_seconds=1e9)
    assert all(e.epoch == 0 for e in events if isinstance(e, GroupStarted))
    check_equal(whole, store)


def test_saving_after_every_epoch_changes_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    original = Store.write_checkpoint

    def write(self: Store, key: str, *rest: Any) -> None:
        saved.append(key)
        original(self, key, *rest)

    monkeypatch.setattr(Store, "write_checkpoint", write)
    plan = small_plan("momentum", FUSED)
    never, _ = finish(plan, tmp_path / "never", checkpoint_seconds=1e9)
    assert not saved
    always, _ = finish(plan, tmp_path / "always", checkpoint_seconds=0)
    # Three epochs: after the first and the second; the third is kept as a node.
    assert sorted(saved) == sorted([*plan.nodes] * 2)
    check_equal(never, always)
    check_tidy(always)


def test_fused_heads_that_stand_at_different_epochs(tmp_path: Path) -> None:
    plan = tiny_plan(tiny_study(["two-stage"], recipe={"epochs": 4, "optimizer": "adam"}))
    whole, _ = finish(plan, tmp_path / "whole")
    root = tmp_path / "cut"
    store = Store(root)
    heads = [by_phase(plan, f"exit {n}") for n in (1, 2, 3)]
    running = run(plan, store, conduct(root, checkpoint_seconds=0))
    for event in running:
        if isinstance(event, Epoch) and event.report.key == heads[0] and event.report.epoch == 2:
            shutil.copytree(root / "work", tmp_path / "after 1 epoch")
        if isinstance(event, Epoch) and event.report.key == heads[0] and event.report.epoch == 3:
            break
    running.close()
    # Head 1 keeps the checkpoint of epoch 3, head 2 has that of epoch 1, head 3 has none.
    shutil.rmtree(root / "work" / heads[1])
    shutil.copytree(tmp_path / "after 1 epoch" / heads[1], root / "work" / heads[1])
    shutil.rmtree(root / "work" / heads[2])
    _, events = finish(plan, root, checkpoint_seconds=0)
    starts = {key: e.epoch for e in events if isinstance(e, GroupStarted) for key in e.keys}
    assert starts == dict(zip(heads, (3, 1, 0), strict=True))
    check_equal(whole, store)
    check_tidy(store)


def test_a_checkpoint_of_a_phase_that_had_ended_is_kept_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the last epoch's checkpoint and the node: only keeping it is left to do."""
    plan = tiny_plan(tiny_study(["baseline"]))
    whole, _ = finish(plan, tmp_path / "whole")
    root = tmp_path / "cut"

    def stop(running: Run, trainee: Trainee, *_: Any) -> None:
        running.store.write_checkpoint(trainee.node.key, *pack(trainee))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("offramp.study.run.run.Run._keep", stop)
        with pytest.raises(KeyboardInterrupt):
            finish(plan, root)
    monkeypatch.setattr(engine_fit, "step", None)
    store, events = finish(plan, root)
    assert trained(events) == list(plan.nodes)
    assert hashes(store) == hashes(whole)


BASELINE = tiny_plan(tiny_study(["baseline"], recipe={"epochs": 3}))


@pytest.fixture(scope="module")
def whole_baseline(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return finish(BASELINE, tmp_path_factory.mktemp("baseline"))[0]


def test_a_damaged_checkpoint_starts_the_phase_over(
    tmp_path: Path, whole_baseline: Store, caplog: pytest.LogCaptureFixture
) -> None:
    running = run(BASELINE, Store(tmp_path), conduct(tmp_path, checkpoint_seconds=0))
    next(e for e in running if isinstance(e, Epoch) and e.report.epoch == 2)
    running.close()
    (checkpoint,) = (tmp_path / "work").glob("*/*")
    flip(checkpoint)
    store, events = finish(BASELINE, tmp_path)
    assert [e.epoch for e in events if isinstance(e, GroupStarted)] == [0]
    assert str(checkpoint) in caplog.text
    check_equal(whole_baseline, store)


Saved = tuple[dict[str, Any], dict[str, Any]]  # tensors and state of a checkpoint


def lacks_weights(saved: Saved) -> None:
    tensors, _ = saved
    del tensors[next(name for name in tensors if name.startswith("best/"))]


def has_other_shapes(saved: Saved) -> None:
    tensors, _ = saved
    for name in [name for name in tensors if name.startswith("last/")]:
        tensors[name] = torch.zeros(1)  # which `copy_` would spread


def names_a_strange_moment(saved: Saved) -> None:
    saved[0]["optimizer/nobody/momentum_buffer"] = torch.zeros(1)


def counts_other_epochs(saved: Saved) -> None:
    saved[1]["epoch"] = 2**62


def lacks_its_history(saved: Saved) -> None:
    del saved[1]["rows"]


def has_strange_usage(saved: Saved) -> None:
    saved[1]["usage"] = {"nobody": 1.0}


@pytest.mark.parametrize(
    "harm",
    [
        *(lacks_weights, has_other_shapes, names_a_strange_moment),
        *(counts_other_epochs, lacks_its_history, has_strange_usage),
    ],
    ids=lambda harm: harm.__name__,
)
def test_a_sealed_checkpoint_that_is_none_of_its_phase_starts_it_over(
    tmp_path: Path,
    whole_baseline: Store,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Saved], None],
) -> None:
    """Whoever writes a store can seal what is in it."""
    running = run(BASELINE, Store(tmp_path), conduct(tmp_path, checkpoint_seconds=0))
    next(e for e in running if isinstance(e, Epoch) and e.report.epoch == 2)
    running.close()
    (key,) = Store(tmp_path).archive.checkpoints()
    saved = Store(tmp_path).read_checkpoint(key)
    assert saved is not None
    harm(saved)
    Store(tmp_path).write_checkpoint(key, *saved)
    store, events = finish(BASELINE, tmp_path)
    assert [e.epoch for e in events if isinstance(e, GroupStarted)] == [0]
    assert key in caplog.text and "the phase starts over" in caplog.text
    check_equal(whole_baseline, store)


def test_an_epoch_of_which_losses_are_lacking_is_not_gone_on_with() -> None:
    """It ended in an IndexError at the step that had no room."""
    tally = Tally.begun((1,), CPU)
    assert tally.pack()[0]["losses"].shape == (0,)
    for _ in range(3):
        tally.add(torch.ones(3), images=2)
    tensors, numbers = tally.pack()
    assert Tally.unpack((1,), tensors, numbers, CPU).steps == 3
    longer = {**tensors, "losses": torch.zeros(9)}  # of an earlier offramp: all steps of the epoch
    again = Tally.unpack((1,), longer, numbers, CPU)
    again.add(torch.ones(3), images=2)
    assert again.steps == 4
    with pytest.raises(ValueError, match="other steps"):
        Tally.unpack((1,), {**tensors, "losses": torch.zeros(2)}, numbers, CPU)


# A full disk.


DISKS = {
    errno.ENOSPC: "the disk is full while writing {}/.*; free",
    errno.EDQUOT: "your quota is used up while writing {}/.*; free",
    errno.EROFS: r"cannot write {}/.*\(Read-only file system\); allow it or",
    errno.EIO: r"cannot write {}/.*\(Input/output error\); allow it or",
    errno.ESTALE: r"cannot write {}/.*\(Stale file handle\); allow it or",
}


def full_disk(patch: pytest.MonkeyPatch, at: int, code: int = errno.ENOSPC) -> Callable[[], int]:
    """The `at`-th file from now on is cut in half, with an error of the disk; returns a count."""
    original, written = Path.write_bytes, 0

    def write(self: Path, data: bytes) -> int:
        nonlocal written
        written += 1
        if written >= at:
            original(self, bytes(data[: len(data) // 2]))
            raise OSError(code, os.strerror(code), str(self))
        return original(self, data)

    patch.setattr(Path, "write_bytes", write)
    return lambda: written


def test_a_disk_that_is_full_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(tiny_study(["baseline"]))
    with monkeypatch.context() as patch:
        written = full_disk(patch, 10**9)
        whole, _ = finish(plan, tmp_path / "whole", checkpoint_seconds=0)
    # The store's version, a plan, a checkpoint, a node of 4 files, a trial of 2 files.
    assert written() == 1 + 1 + 1 + 4 + 2
    for at, (code, message) in zip(range(1, written() + 1), cycle(DISKS.items()), strict=False):
        root = tmp_path / f"full at {at}"
        with monkeypatch.context() as patch:
            full_disk(patch, at, code)
            refuses(message.format(root), finish, plan, root, checkpoint_seconds=0)
        cut = Store(root)
        assert locks_free(plan, cut)
        check_sound(cut)
        assert not list((root / "staging").glob("*")) and not list(root.rglob("*.tmp"))
        before = set(cut.nodes())
        store, events = finish(plan, root)
        assert reused(events) == before and set(trained(events)) == set(plan.nodes) - before
        check_equal(whole, store)
        check_tidy(store)


def test_checkpoints_that_take_long_are_made_less_often() -> None:
    """At most one part in a hundred of the time goes into them at the usual pause."""
    assert pause_after(0.1, 20) == pause_after(0.2, 20) == 20
    assert pause_after(0.7, 20) == pytest.approx(70)
    assert pause_after(5, 0) == 0  # after every epoch, whatever it takes
