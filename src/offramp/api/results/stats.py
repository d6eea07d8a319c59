"""Do groups differ, in any table of numbers?"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from offramp.api.answer import answer
from offramp.api.options import CommandOption, FastStepWatcher
from offramp.errors import OfframpError, in_line, nearest
from offramp.files import TABLE, read_regular
from offramp.terminal import TextBlocks, TextTable
from offramp.units import counted

if TYPE_CHECKING:
    import pandas as pd

    from offramp.analysis.stats import Analysis, Columns, GroupOrder, OneWay, OverBlocks
    from offramp.analysis.stats.pairwise import Pairs

MISSING = ("", "nan", "na", "n/a", "null", "none")
ColumnName = Annotated[str | None, CommandOption("COLUMN")]


@answer
class GroupStatistics:
    """Whether groups differ.

    Attributes:
        analyses: An analysis for each value of the columns that separate them.
        rule: How to read them.
    """

    analyses: Sequence[tuple[Mapping[str, str], Analysis]]
    rule: str
    _columns: Columns

    def as_json(self) -> dict[str, Any]:
        from offramp.analysis.stats.pairwise import ALPHA
        from offramp.analysis.stats.text import plain

        cells = [{"by": by, **plain(analysis)} for by, analysis in self.analyses]
        return {"alpha": ALPHA, "rule": self.rule, "analyses": cells}

    def document(self) -> TextBlocks:
        parts: list[str | TextTable] = []
        for by, analysis in self.analyses:
            parts += [_title(self._columns, by), *_analysis(analysis, self._columns)]
        parts.append(f"\nHow to read it. {self.rule}")
        if len(self.analyses) > 1:
            parts.append(
                f"p-values are adjusted within each of the {len(self.analyses)} analyses, not across "
                "them."
            )
        return parts


def stats(
    file: Path,
    *,
    value: Annotated[str, CommandOption("COLUMN")],
    group: Annotated[str, CommandOption("COLUMN")],
    block: ColumnName = None,
    by: Annotated[str | None, CommandOption("COLUMN[,COLUMN]")] = None,
    where: Annotated[Sequence[str], CommandOption("COLUMN=VALUE")] = (),
    same: ColumnName = None,
    measured: ColumnName = None,
    families: bool = False,
    better: Annotated[
        Literal["higher", "lower"] | None, CommandOption("higher|lower", parse=lambda text, _: text)
    ] = None,
    watch: FastStepWatcher = None,
) -> GroupStatistics:
    """Test whether groups differ, in any table of numbers.

    The file has one row for each value. With `block`, values are compared within each block, such as a
    seed. It also shows the paper's one-way analysis. docs/statistics.md explains both analyses and the
    notation.

    Args:
        file: A .csv or .parquet file, one row for each value.
        value: The numbers, such as accuracy.
        group: The groups to compare, such as strategy.
        block: What pairs the values, such as seed.
        by: A separate analysis for each value.
        where: Use only these rows. Repeatable.
        same: Keys: groups with equal keys are identical by construction.
        measured: True or false: was it measured? Estimates are not tested.
        families: Test the five core strategies, and each hybrid with its parents.
        better: Which values are better.
        watch: Called with each step.

    Raises:
        OfframpError: The file cannot be read, a column is missing, or no row is left.

    On the command line:
        offramp compare table.csv --value value --group strategy --block seed \\
          --where split=test --where metric=accuracy --where exit=4 --same source
    """
    from offramp.analysis.stats import Columns, analyze_by, rule
    from offramp.analysis.stats.pairwise import ALPHA
    from offramp.paper import FAMILIES

    if better not in (None, "higher", "lower"):
        raise OfframpError(f"`better` is '{better}'; write higher or lower")
    columns = Columns(value, group, block, same, measured)
    split = [name.strip() for name in (by or "").split(",") if name.strip()]
    frame = _filter(read(Path(file), value), where)
    if frame.empty:
        raise OfframpError(f"{file} has no rows{' where ' + ' and '.join(where) if where else ''}")
    analyses = []
    core = FAMILIES if families else None
    for cell in analyze_by(frame, columns, split, families=core, alpha=ALPHA, watch=watch):
        analyses.append(cell)
        if watch is not None:
            watch(counted(len(analyses), "analysis", "analyses"))
    return GroupStatistics(analyses, rule(ALPHA, better), columns)


def read(file: Path, value: str) -> pd.DataFrame:
    """A table from a .csv or .parquet file; of a CSV, every column but `value` as text."""
    import pandas as pd

    from offramp import parquet

    if not file.is_file():
        raise OfframpError(f"there is no file {file}; name a CSV or Parquet file")
    try:
        if file.suffix.lower() == ".parquet":
            frame: pd.DataFrame = parquet.read(read_regular(file, TABLE)).to_pandas()
            return frame
        if file.suffix.lower() == ".csv":
            text = io.BytesIO(read_regular(file, TABLE))
            frame = pd.read_csv(text, dtype=str, keep_default_na=False)
            if value in frame.columns:
                frame[value] = _numbers(frame[value], file)
            return frame
    except OfframpError:
        raise
    except Exception as error:  # pandas and pyarrow raise whatever they like on damaged bytes
        reason = (error.strerror if isinstance(error, OSError) else None) or in_line(error)
        raise OfframpError(f"{file} cannot be read ({reason}); write it anew") from None
    raise OfframpError(f"{file} is neither .csv nor .parquet; convert it to one of them")


def _numbers(column: pd.Series, file: Path) -> list[float]:
    numbers = []
    for line, text in enumerate(column, start=2):
        word = str(text).strip()
        try:
            numbers.append(math.nan if word.lower() in MISSING else float(word))
        except ValueError:
            raise OfframpError(
                f"{file}:{line}: '{word}' in column '{column.name}' is no number; correct it or leave "
                "the field empty"
            ) from None
    return numbers


def _filter(frame: pd.DataFrame, where: Sequence[str]) -> pd.DataFrame:
    for condition in where:
        column, sign, text = condition.partition("=")
        if not sign:
            raise OfframpError(f"`where` is '{condition}'; write COLUMN=VALUE")
        if column not in frame.columns:
            raise OfframpError(
                f"there is no column '{column}'{nearest(column, map(str, frame.columns))}"
            )
        frame = frame[frame[column].map(str) == text]
    return frame


def _title(columns: Columns, by: Mapping[str, str]) -> str:
    cell = ", ".join(f"{name} {value}" for name, value in by.items())
    title = f"{columns.value} by {columns.group}{' · ' + cell if cell else ''}"
    return f"\n{title}\n{'=' * len(title)}"


def _analysis(analysis: Analysis, columns: Columns) -> list[str | TextTable]:
    from offramp.analysis.stats import Untested
    from offramp.analysis.stats.text import sentence

    rows = [
        (m.group, str(m.n), f"{m.mean:.6g}", "–" if m.sd is None else f"{m.sd:.3g}")
        for m in analysis.means
    ]
    parts: list[str | TextTable] = [TextTable([columns.group], ["n", "mean", "sd"], rows)]
    parts += [f"Note: {note}." for note in analysis.notes]
    if analysis.over_blocks is not None:
        parts.append(f"DEFAULT: repeated measures over {columns.block}")
        if isinstance(analysis.over_blocks, Untested):
            parts.append(sentence(analysis.over_blocks))
        else:
            parts += _over_blocks(analysis.over_blocks)
    mark = "DEFAULT" if analysis.default == "one-way" else "BESIDE IT"
    parts.append(f"\n{mark}: one-way analysis, the paper's way")
    if isinstance(analysis.one_way, Untested):
        parts.append(sentence(analysis.one_way))
    else:
        parts += _one_way(analysis.one_way, shared=analysis.default == "over blocks")
    return parts


def _over_blocks(test: OverBlocks) -> list[str | TextTable]:
    from offramp.analysis.stats.text import sentence

    title = "Paired differences; p adjusted after Holm, intervals simultaneous"
    return [
        f"Assumes: {test.assumes}.",
        f"Overall: {sentence(test.anova)}",
        *_pairs(test.pairs, title),
        _order(test.order),
    ]


def _one_way(test: OneWay, shared: bool) -> list[str | TextTable]:
    from offramp.analysis.stats.text import sentence

    warning = "; not so where blocks share anything" if shared else ""
    parts: list[str | TextTable] = [
        f"Assumes: {test.assumes}{warning}.",
        f"Overall: {sentence(test.anova)}",
        f"Normal residuals (Shapiro–Wilk): {sentence(test.shapiro)}",
        f"Equal variances (Levene, medians): {sentence(test.levene)}",
        *_pairs(test.pairs, "Tukey's HSD; p adjusted, intervals simultaneous"),
        _order(test.order),
    ]
    if test.unequal is not None:
        parts += [
            "\nVariances differ (Levene rejects): Welch's analysis and Games–Howell",
            f"Assumes: {test.unequal.assumes}{warning}.",
            f"Overall: {sentence(test.unequal.welch)}",
            *_pairs(test.unequal.pairs, "Games–Howell; p adjusted, intervals simultaneous"),
            _order(test.unequal.order),
        ]
    return parts


def _pairs(pairs: Pairs, title: str) -> list[str | TextTable]:
    from offramp.analysis.stats.pairwise import ALPHA, Pair
    from offramp.analysis.stats.text import pair_p

    paired = any(isinstance(p, Pair) and p.detectable is not None for p in pairs)
    more = ["detectable"] if paired else []
    rows = []
    for pair in pairs:
        name = f"{pair.a} – {pair.b}"
        if isinstance(pair, Pair):
            interval = f"{pair.low:.4g} to {pair.high:.4g}"
            least = [] if pair.detectable is None else [f"{pair.detectable:.4g}"]
            rows.append((name, f"{pair.difference:.4g}", interval, *least, pair_p(pair)))
        else:
            difference = "–" if pair.difference is None else f"{pair.difference:.4g}"
            label = f"{name}\n  not tested: {pair.why}"
            rows.append((label, difference, "–", *("–" for _ in more), "–"))
    parts: list[str | TextTable] = [
        TextTable(["pair"], ["difference", "95 % interval", *more, "p"], rows, title)
    ]
    if paired:
        parts.append("Detectable: the smallest true difference that is found with probability 80 %.")
    if any(isinstance(p, Pair) and p.p < ALPHA and p.low <= 0 <= p.high for p in pairs):
        parts.append(
            "An interval includes zero although p < 0.05: Holm's test is a little stronger than "
            "simultaneous intervals."
        )
    return parts


def _order(order: GroupOrder) -> str:
    return f"In short: {order.text()}{f'   ({order.why})' if order.why else ''}"
