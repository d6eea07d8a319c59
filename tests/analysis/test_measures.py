"""Observations of a small table made by hand, and curves that join phases."""

import numpy as np
import pandas as pd
import pytest
from syrupy.assertion import SnapshotAssertion

from offramp.analysis.curves import joined, loss_rise, overall, overfitting_epoch
from offramp.analysis.measures import ALL, MEASURES, OBSERVATION, numbers, observations
from offramp.paper.exits import rise_and_jitter, trend
from offramp.store.table import COLUMNS
from simulate import NINE, tidy_table
from wording import refusal


def history(phase: str, exit: int, losses: list[float], trial: str = "t") -> list[dict[str, object]]:
    """Validation and training loss (1 higher) and accuracy (1 minus loss); train-eval at the end."""
    about = {"trial": trial, "phase": phase, "exit": exit, "source": phase, "measured": True}
    rows: list[dict[str, object]] = []
    for epoch, loss in enumerate(losses, start=1):
        for split, add in (("validation", 0.0), ("train", 1.0)):
            at = {**about, "split": split, "epoch": epoch}
            rows.append({**at, "metric": "cross_entropy", "value": loss + add})
            rows.append({**at, "metric": "accuracy", "value": 1 - loss})
    last = {**about, "split": "train-eval", "epoch": len(losses)}
    rows.append({**last, "metric": "cross_entropy", "value": losses[-1] / 2})
    rows.append({**last, "metric": "accuracy", "value": 1 - losses[-1] / 2})
    return rows


def final(exit: int, loss: float, trial: str = "t", source: str = "w") -> list[dict[str, object]]:
    about = {"trial": trial, "phase": "final", "exit": exit, "source": source, "measured": True}
    return [
        {**about, "split": split, "metric": metric, "value": value}
        for split in ("validation", "test")
        for metric, value in (("cross_entropy", loss), ("accuracy", 1 - loss))
    ]


def table(rows: list[dict[str, object]], **about: object) -> pd.DataFrame:
    fields = {"strategy": "joint-branch", "model": "m", "data": "d", "seed": 1} | about
    frame = pd.DataFrame(rows).assign(**fields).reindex(columns=list(COLUMNS))
    return frame.astype({"exit": "Int64", "epoch": "Int64"})


HYBRID = table(
    [
        *history("joint", 1, [0.9, 0.6]),
        *history("joint", 2, [0.8, 0.4]),
        *history("branch 1", 1, [0.7, 0.5, 0.55]),
        *final(1, 0.55, source="a"),
        *final(2, 0.4, source="b"),
    ]
)


def curve(source: pd.DataFrame, exit: int | None, trial: str = "t") -> pd.DataFrame:
    """Validation loss of an exit, or overall, by epoch."""
    rows = joined(source[source["trial"] == trial])
    rows = overall(rows) if exit is None else rows[rows["exit"] == exit]
    return rows[(rows["split"] == "validation") & (rows["metric"] == "cross_entropy")]


def test_an_exits_curve_joins_the_phases_that_trained_it() -> None:
    first = curve(HYBRID, 1)
    assert first["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert first["value"].tolist() == [0.9, 0.6, 0.7, 0.5, 0.55]
    assert curve(HYBRID, 2)["value"].tolist() == [0.8, 0.4]


def test_the_overall_curve_holds_a_stopped_exit() -> None:
    whole = curve(HYBRID, None)
    np.testing.assert_allclose(whole["value"], [0.85, 0.5, 0.55, 0.45, 0.475])


def test_overall_curves_of_many_trials_at_once_are_those_of_each() -> None:
    both = pd.concat([HYBRID, HYBRID.assign(trial="u", seed=2, value=HYBRID["value"] * 2)])
    many = overall(joined(both))
    for trial in ("t", "u"):
        at = (many["trial"] == trial) & (many["split"] == "validation")
        actual = many[at & (many["metric"] == "cross_entropy")]["value"]
        np.testing.assert_allclose(actual, curve(both, None, trial)["value"])


def values(name: str, source: pd.DataFrame = HYBRID) -> dict[int | None, float]:
    observed = observations(source, MEASURES[name])
    exits = [None if pd.isna(e) else int(e) for e in observed["exit"]]
    return dict(zip(exits, observed["value"].tolist(), strict=True))


def test_epoch_metrics_are_of_the_last_phase_and_average_over_exits() -> None:
    assert values("min-loss-epoch") == {1: 2.0, 2: 2.0, None: 2.0}
    assert values("peak-epoch") == {1: 2.0, 2: 2.0, None: 2.0}
    assert values("loss-rise") == pytest.approx({1: 0.1, 2: 0.0, None: 0.05})
    # 0.6 to 0.7 is where the second phase begins: no spike; 0.5 to 0.55 is the largest rise.
    assert values("largest-spike") == pytest.approx({1: 0.05, 2: 0.0, None: 0.025})


LOW = [0.9, 0.5, 0.3]  # an earlier phase with a lower loss than any epoch of the later one
FALLS = [3.0, 2.0, 1.5, 1.2, 1.1, 1.05, 1.04, 1.03]
OVERFITS = [1.0, 0.5, 0.6, 0.61, 0.62, 0.63, 0.64, 0.65]


def two_phases(later: list[float]) -> pd.DataFrame:
    """A head that is drawn anew for a second phase; training loss falls in both."""
    built = table([*history("joint", 1, LOW), *history("exit 1", 1, later), *final(1, later[-1])])
    at = (built["split"] == "train") & (built["metric"] == "cross_entropy")
    return built.assign(value=built["value"].where(~at, 5 - 0.1 * built["epoch"].astype(float)))


def test_a_head_drawn_anew_does_not_overfit() -> None:
    fresh = two_phases(FALLS)
    assert values("overfits", fresh) == {1: 0.0, None: 0.0}
    assert values("overfitting-epoch", fresh) == {}
    assert values("loss-rise", fresh) == {1: 0.0, None: 0.0}
    assert values("largest-spike", fresh) == {1: 0.0, None: 0.0}
    assert values("min-loss-epoch", fresh)[1] == 8.0
    # On the joined curve it would: the last loss is far above the least one, of the first phase.
    whole = curve(fresh, 1)["value"].to_numpy()
    assert overfitting_epoch(whole, np.linspace(5, 4, len(whole))) is not None
    assert loss_rise(whole) == pytest.approx(1.03 / 0.3 - 1)
    # So with the words of Table 7.
    (own,) = numbers(fresh).histories
    assert (own.phase, own.loss.tolist()) == ("exit 1", FALLS)
    assert trend(*rise_and_jitter(own.loss)) == "stable"
    assert trend(*rise_and_jitter(whole)) == "divergent"


def test_overfitting_in_the_last_phase_is_found() -> None:
    over = two_phases(OVERFITS)
    assert values("overfits", over) == {1: 1.0, None: 1.0}
    assert values("overfitting-epoch", over) == {1: 3.0, None: 3.0}
    assert values("loss-rise", over)[1] == pytest.approx(0.3)


def test_a_hybrid_is_not_tied_to_the_parent_that_it_begins_with() -> None:
    parent = table([*history("joint", 1, LOW), *final(1, 0.3)], strategy="joint")
    observed = observations(
        pd.concat([two_phases(FALLS), parent.assign(trial="p")]), MEASURES["min-loss-epoch"]
    )
    by_strategy = observed[observed["exit"] == 1].set_index("strategy")
    assert by_strategy["value"].to_dict() == {"joint": 3.0, "joint-branch": 8.0}
    assert by_strategy["source"].nunique() == 2
    # An exit that its own phases left alone is the parent's: the same source.
    twin = table([*history("joint", 2, [0.8, 0.4]), *final(2, 0.4, "p")], strategy="joint")
    rest = observations(pd.concat([HYBRID, twin.assign(trial="p")]), MEASURES["loss-rise"])
    assert rest[rest["exit"] == 2]["source"].nunique() == 1


def test_the_gap_compares_both_in_eval_mode() -> None:
    assert values("generalization-gap-last") == pytest.approx({1: 0.275, 2: 0.2, None: 0.2375})


def test_training_numbers_are_of_the_weights_that_were_kept() -> None:
    rows = history("joint", 1, [0.9, 0.3, 0.5])
    best = {"trial": "t", "phase": "joint", "exit": 1, "split": "train-eval", "epoch": 2}
    rows.append({**best, "metric": "accuracy", "value": 0.99, "source": "joint", "measured": True})
    assert values("accuracy-train", table([*rows, *final(1, 0.3)])) == {1: 0.99, None: 0.99}
    assert values("accuracy-train", table([*rows, *final(1, 0.5)])) == {1: 0.75, None: 0.75}


def test_quality_is_of_the_final_weights() -> None:
    assert values("accuracy-test") == pytest.approx({1: 0.45, 2: 0.6, None: 0.525})
    assert values("final-loss-test") == {None: 0.4}


def test_no_mean_over_exits_for_a_trial_that_lacks_some() -> None:
    plain = table([*history("backbone", 2, [0.5]), *final(2, 0.5, "p")], strategy="baseline")
    both = pd.concat([HYBRID, plain.assign(trial="p")])
    observed = observations(both, MEASURES["accuracy-test"])
    lone = observed[observed["strategy"] == "baseline"]
    assert lone["exit"].tolist() == [2]
    last = observations(both, MEASURES["final-accuracy-test"])
    assert sorted(last["strategy"]) == ["baseline", "joint-branch"]
    # Alone in its cell it lacks nothing.
    alone = observations(plain.assign(trial="p"), MEASURES["accuracy-test"])
    assert alone["exit"].isna().sum() == 1


def test_equal_sources_stay_equal_overall() -> None:
    twin = HYBRID.assign(trial="u", strategy="joint", source=HYBRID["source"])
    observed = observations(pd.concat([HYBRID, twin]), MEASURES["accuracy-test"])
    assert observed.groupby(observed["exit"].fillna(0))["source"].nunique().eq(1).all()
    other = twin.assign(source=twin["source"].replace("a", "z"))
    observed = observations(pd.concat([HYBRID, other]), MEASURES["accuracy-test"])
    assert observed.groupby(observed["exit"].fillna(0))["source"].nunique().to_dict() == {
        0: 2,
        1: 2,
        2: 1,
    }


COSTS = [("joint", "seconds_train", 10.0), ("joint", "seconds_checkpoint", 1.0)]
COSTS += [("joint", "macs_written", 400.0), ("joint", "macs_executed", 400.0)]
COSTS += [("branch 1", "seconds_train", 2.0), ("branch 1", "macs_written", 300.0)]
COSTS += [("branch 1", "macs_executed", 100.0)]
for _phase, _memory, _watts in (("joint", 7e6, 50.0), ("branch 1", 5e6, 80.0)):
    COSTS += [(_phase, "memory_gpu_peak_bytes", _memory), (_phase, "power_gpu_mean_w", _watts)]
    COSTS += [(_phase, "energy_gpu_j", 100.0)]


def with_costs(measured: bool) -> pd.DataFrame:
    rows = [
        {"trial": "t", "phase": p, "metric": m, "value": v, "source": p, "measured": measured}
        for p, m, v in COSTS
    ]
    return pd.concat([HYBRID, table(rows)], ignore_index=True)


def test_measured_time_leaves_out_checkpoints_and_the_rest_is_summed() -> None:
    measured = with_costs(True)
    assert values("seconds-written", measured) == {None: 12.0}
    assert values("seconds-executed", measured) == {None: 13.0}
    assert observations(measured, MEASURES["seconds-written"])["measured"].all()


def test_estimated_time_adds_spared_macs_at_the_pace_of_the_largest_phase() -> None:
    estimated = with_costs(False)
    assert values("seconds-written", estimated) == {None: pytest.approx(12 + 200 * 10 / 400)}
    assert not observations(estimated, MEASURES["seconds-written"])["measured"].any()
    assert observations(estimated, MEASURES["macs-written"])["measured"].all()  # counted


def test_time_by_kind_is_that_of_all_phases_or_of_none() -> None:
    measured = with_costs(True)
    assert values("seconds-train", measured) == {None: 12.0}
    assert values("seconds-data", measured) == {}  # no phase tells it apart
    waited = [
        {"trial": "t", "phase": p, "metric": "seconds_data", "value": v, "source": p, "measured": True}
        for p, v in (("joint", 3.0), ("branch 1", 0.5))
    ]
    assert values("seconds-data", pd.concat([measured, table(waited)])) == {None: 3.5}
    assert values("seconds-data", pd.concat([measured, table(waited[:1])])) == {}
    both = pd.concat([measured, table(waited)])
    assert values("seconds-written", both) == {None: 15.5}  # a part of training as it is written
    assert values("power-gpu-mean", both) == pytest.approx({None: (50 * 13 + 80 * 2.5) / 15.5})


def test_memory_power_and_energy_over_phases() -> None:
    measured = with_costs(True)
    assert values("memory-gpu-max", measured) == {None: 7e6}
    assert values("memory-gpu-sum", measured) == {None: 12e6}
    assert values("power-gpu-mean", measured) == pytest.approx({None: (50 * 10 + 80 * 2) / 12})
    assert values("energy-gpu", measured) == {None: 200.0}
    assert values("energy", measured) == {}  # no CPU readings


def test_a_phase_without_a_reading_leaves_the_trial_without() -> None:
    measured = with_costs(True)
    gone = (measured["metric"] == "memory_gpu_peak_bytes") & (measured["phase"] == "joint")
    assert values("memory-gpu-max", measured[~gone]) == {}


def test_time_of_an_exit_only_where_each_phase_trains_one() -> None:
    rows = [*history("exit 1", 1, [0.5]), *history("exit 2", 2, [0.5]), *final(1, 0.5), *final(2, 0.5)]
    spent = [
        {"trial": "t", "phase": f"exit {k}", "metric": "seconds_train", "value": k, "measured": True}
        for k in (1, 2)
    ]
    assert values("seconds-written", table([*rows, *spent])) == {1: 1.0, 2: 2.0, None: 3.0}


def test_time_of_a_phase_for_several_exits_is_attributed_and_no_measurement() -> None:
    rows = with_costs(True)
    assert values("seconds-written", rows) == {None: 12.0}  # nothing says how
    sentence = [("joint", 1, 2.5), ("joint", 2, 7.5), ("branch 1", 1, 2.0)]
    more = [
        {"trial": "t", "phase": p, "exit": e, "metric": "exit_seconds", "value": v, "measured": True}
        for p, e, v in sentence
    ]
    both = pd.concat([rows, table(more)], ignore_index=True)
    assert values("seconds-written", both) == pytest.approx({1: 4.5, 2: 7.5, None: 12.0})
    observed = observations(both, MEASURES["seconds-written"])
    assert observed["measured"].tolist() == [False, False, True]


LACKING = {"memory-torch-max", "power-cpu-peak", "power-gpu-peak", "energy-cpu", "energy"} | {
    "seconds-validation",
    "seconds-data",
    "overfitting-epoch",
    "saturation-epoch",  # accuracy falls at the end of every simulated curve
}


def test_every_measure_is_made_from_a_whole_table() -> None:
    whole = numbers(tidy_table(1, epochs=20, seeds=2))
    for name, first in MEASURES.items():
        observed = observations(whole, first)
        assert list(observed.columns) == list(OBSERVATION)
        assert set(observed["strategy"]) <= set(NINE)
        # Of the other metrics of logits the table has none.
        from_logits = first.metric is not None and first.metric.name not in {"accuracy", "cross_entropy"}
        assert len(observed) or name in LACKING or from_logits, name


def test_order_of_trials_does_not_matter() -> None:
    table = tidy_table(3, epochs=8, seeds=2)
    trials = table["trial"].unique()[::-1]
    turned = pd.concat([table[table["trial"] == trial] for trial in trials], ignore_index=True)
    first, other = numbers(table), numbers(turned)
    for name in ("accuracy-test", "min-loss-epoch", "seconds-written", "generalization-gap-best"):
        pd.testing.assert_frame_equal(
            observations(first, MEASURES[name]), observations(other, MEASURES[name])
        )


def test_two_settings_in_one_table_are_refused(snapshot: SnapshotAssertion) -> None:
    both = pd.concat([HYBRID, HYBRID.assign(trial="other")])
    assert refusal(numbers, both) == snapshot


def test_an_empty_table_has_no_observations() -> None:
    empty = numbers(pd.DataFrame(columns=list(COLUMNS)).astype({"exit": "Int64", "epoch": "Int64"}))
    for first in MEASURES.values():
        assert observations(empty, first).empty


def test_values_are_said_in_their_unit() -> None:
    wording = {
        "accuracy-test": ("74.9 %", "−0.41 points", 0.749, -0.0041),
        "peak-epoch": ("1 epoch", "1.5 epochs", 1, 1.5),
        "loss-test": ("0.62 nats", "−1 nat", 0.62, -1),
        "seconds-written": ("3 min 20 s", "−20.0 s", 200, -20),
        "macs-written": ("1.5 G MACs", "−2 MACs", 1.5e9, -2),
        "memory-cpu-max": ("1.8 GB", "−2 B", 1.8e9, -2),
    }
    for name, (text, gap, value, difference) in wording.items():
        assert MEASURES[name].text(value) == text and MEASURES[name].gap(difference) == gap
    assert MEASURES["memory-cpu-max"].about["unit"] == "MB"
    assert {m.unit.name: m.unit.scale for m in ALL} == {
        "": 1,
        **{"%": 100, "points": 100, "nats": 1, "epochs": 1, "s": 1, "W": 1, "J": 1},
        **{"GMAC": 1e-9, "MB": 1e-6},
    }
