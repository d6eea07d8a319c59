"""Times of stages from a device's file (`run.py --measure --out FILE`), used in place of MACs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from offramp.errors import OfframpError
from offramp.files import DOCUMENT, read_regular_text
from offramp.policy.calibrate import MeasuredCosts
from offramp.policy.costs import Costs
from offramp.policy.limits import LIMITS, LimitKind
from offramp.policy.policy import located

SPREAD = 2.0  # of the median: what nineteen rounds of twenty may take at most
Milliseconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
RoundsNumber = Literal["mean", "p50", "p95"]
ShortText = Annotated[str, Field(min_length=1, max_length=200)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TimedStage(_Strict):
    """A stage of a bundle, with the head of its exit."""

    batch: Annotated[int, Field(ge=1, le=1 << 20)]
    exit: Annotated[int, Field(ge=1, le=1 << 20)]
    macs: Annotated[int, Field(ge=1)]  # of an image that leaves here, from the start
    mean: Milliseconds  # of a batch
    p50: Milliseconds
    p95: Milliseconds


class _Machine(_Strict):
    """What timed the stages, with the version of the runtime that ran them, under its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ShortText] = Field(init=False)

    processor: Annotated[str, Field(max_length=200)]
    cores: Annotated[int, Field(ge=1, le=1 << 20)]
    system: Annotated[str, Field(max_length=200)]
    python: Annotated[str, Field(max_length=200)]

    @model_validator(mode="after")
    def _one_runtime(self) -> Self:
        if len(self.model_extra or {}) != 1:
            raise ValueError("must have the version of one runtime, such as onnxruntime")
        return self


class StageTimes(_Strict):
    """A device's file of stage times."""

    format: Literal["offramp-stage-times-1"]
    device: ShortText
    precision: Literal["float32", "int8"]
    threads: Annotated[int, Field(ge=1, le=1 << 20)]
    machine: _Machine
    repeats: Annotated[int, Field(ge=1)]  # rounds
    stages: Annotated[list[TimedStage], Field(min_length=1)]

    def by_batch(self) -> dict[int, list[TimedStage]]:
        """By images at once, in order of exits. Raises ValueError where that is not the file's order, or
        batches differ in exits."""
        stages: dict[int, list[TimedStage]] = {}
        for row in self.stages:
            earlier = stages.setdefault(row.batch, [])
            if earlier and earlier[-1].exit >= row.exit:
                raise ValueError(f"stages: exits of batch {row.batch} must ascend, got {row.exit}")
            if row.p50 > row.p95:
                raise ValueError(f"stages: p50 of exit {row.exit} is above its p95")
            earlier.append(row)
        if len({tuple((row.exit, row.macs) for row in rows) for rows in stages.values()}) > 1:
            raise ValueError("stages: every batch must have the same exits and MACs")
        return stages


def read(path: Path) -> StageTimes:
    """Read and check the file of a device. Raises OfframpError: one line that names what is wrong."""
    remedy = "measure again on the device: python run.py --measure --out FILE"
    try:
        times = StageTimes.model_validate_json(read_regular_text(path, DOCUMENT))
        times.by_batch()
    except FileNotFoundError:
        raise OfframpError(f"there are no stage times {path}; {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise OfframpError(f"cannot read the stage times {path} ({why}); give another file") from error
    except ValidationError as error:
        raise OfframpError(f"{path}: {located(error, 'file')}; {remedy}") from None
    except ValueError as error:
        raise OfframpError(f"{path}: {error}; {remedy}") from None
    return times


def of_file(path: Path, costs: Costs, batch: int, kind: LimitKind) -> MeasuredCosts:
    """The times in a device's file, by 95th percentiles for a limit on these, else by means. A stage was
    measured with its exit's head, which counts also where a policy leaves it out: rather too slow than
    too fast. Raises OfframpError where the times are of another network, or lack this batch or an
    exit."""
    times, of = read(path), LIMITS[kind].stages or "mean"
    stages = times.by_batch()
    rows = stages.get(batch)
    if rows is None:
        batches = ", ".join(map(str, sorted(stages)))
        raise OfframpError(
            f"{path} has no times of batch {batch}, only of {batches}; choose one of these, or "
            f"measure it: python run.py --measure --batch {batch} --out FILE"
        )
    exits = [row.exit for row in rows]
    if exits != list(costs.exits):
        raise OfframpError(
            f"{path} has times of exits {', '.join(map(str, exits))}, and the trial has "
            f"{', '.join(map(str, costs.exits))}; measure a bundle of offramp export --to-measure"
        )
    if [row.macs for row in rows] != list(costs.leaving(range(len(exits)))):
        raise OfframpError(
            f"{path} is of another network than the trial's, whose MACs differ; measure a "
            "bundle of this trial, or of one of the same backbone, exits and image size"
        )
    about = {
        "source": "stage-times",
        "device": times.device,
        "precision": times.precision,
        "of": of,
        "threads": times.threads,
        "repeats": times.repeats,
        "doubts": list(_doubts(rows, times)),
        "machine": {
            **times.machine.model_dump(mode="json"),
            "device": times.device,
            "threads": times.threads,
        },
    }
    upper, median = (_costs(rows, costs, batch, number) for number in (of, "p50"))
    return measured(upper, median, batch, about)


def measured(upper: Costs, median: Costs, batch: int, about: Mapping[str, Any]) -> MeasuredCosts:
    """Times of parts, and their record, which has seconds of a batch. about: where and how they were
    measured, as JSON."""
    seconds = {
        f"{name}{ending}": [1e-9 * batch * each for each in part]
        for ending, costs in (("", median), ("_used", upper))
        for name, part in (("segments", costs.segments), ("heads", costs.heads))
    }
    return MeasuredCosts(upper, median, {"batch": batch, **seconds, **about})


def unlike(timed: str, device: str, int8: bool) -> tuple[str, ...]:
    """That times of one precision promise nothing of a bundle in the other, a sentence; empty where it
    is the same. timed: the precision of the stages that `device` timed; int8: that of the bundle."""
    precision, flag = ("int8", " --int8") if int8 else ("float32", "")
    if timed == precision:
        return ()
    return (
        f"the times of {device} are of {timed} stages, and the bundle's are {precision}; time a bundle "
        f"of offramp export --to-measure{flag} there",
    )


def recorded(record: Mapping[str, Any], costs: Costs) -> MeasuredCosts:
    """The times in a policy file, as `calibrate` read them. Raises KeyError where it has none."""
    upper, median = (
        in_time(costs, record[f"segments{ending}"], record[f"heads{ending}"], record["batch"])
        for ending in ("_used", "")
    )
    return MeasuredCosts(upper, median, record)


def in_time(costs: Costs, segments: Iterable[float], heads: Iterable[float], batch: int) -> Costs:
    """The costs of a network in nanoseconds an image in place of MACs. segments, heads: [K] seconds of a
    batch."""
    first, second = (tuple(round(1e9 * each / batch) for each in parts) for parts in (segments, heads))
    return replace(costs, segments=first, heads=second)


def _costs(rows: Sequence[TimedStage], costs: Costs, batch: int, of: RoundsNumber) -> Costs:
    """Nanoseconds an image: a stage's time is that of its last segment. A stage that begins at the
    pixels, on a trunk of its own, has earlier segments in it, whose times are taken off."""
    segments = [0] * len(costs.segments)
    newest: dict[int, int] = {}
    for row in rows:
        trunk = costs.owners[row.exit - 1]
        before = sum(segments[newest.get(trunk, 0) : row.exit])
        seconds = {"mean": row.mean, "p50": row.p50, "p95": row.p95}[of] / 1000
        segments[row.exit - 1] = max(round(1e9 * seconds / batch) - before, 0)
        newest[trunk] = row.exit
    return replace(costs, segments=tuple(segments), heads=(0,) * len(costs.heads))


def _doubts(rows: Sequence[TimedStage], times: StageTimes) -> Iterator[str]:
    median, late = sum(row.p50 for row in rows), sum(row.p95 for row in rows)
    if late > SPREAD * median:
        yield (
            f"times of {times.device} are unsteady: one round in twenty takes {late / median:.2g} times "
            f"the median or more, and {SPREAD:g} times is trusted; measure again when the device has "
            "nothing else to do"
        )
