"""`offramp stats`: do groups differ, in any table of numbers?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offramp.cli.options import JsonOption, argument, flag, option
from offramp.cli.render import emit
from offramp.errors import OfframpError, in_line, nearest
from offramp.terminal import console, table

if TYPE_CHECKING:
    import pandas as pd

    from offramp.analysis.stats import Analysis, Columns, GroupOrder, OneWay, OverBlocks
    from offramp.analysis.stats.pairwise import Pairs


def stats(
    file: Annotated[Path, argument("FILE", "A .csv or .parquet file, one row for each value.")],
    value: Annotated[str, option("COLUMN", "The numbers, such as accuracy.")],
    group: Annotated[str, option("COLUMN", "The groups to compare, such as strategy.")],
    block: Annotated[str | None, option("COLUMN", "What pairs the values, such as seed.")] = None,
    by: Annotated[str | None, option("COLUMN[,COLUMN]", "A separate analysis for each value.")] = None,
    where: Annotated[
        list[str] | None, option("COLUMN=VALUE", "Use only these rows. Repeatable.", "--where")
    ] = None,
    same: Annotated[
        str | None, option("COLUMN", "Keys: groups with equal keys are identical by construction.")
    ] = None,
    measured: Annotated[
        str | None, option("COLUMN", "True or false: was it measured? Estimates are not tested.")
    ] = None,
    families: Annotated[
        bool, flag("--families", "Test the five core strategies, and each hybrid with its parents.")
    ] = False,
    better: Annotated[str | None, option("higher|lower", "Which values are better.")] = None,
    json: JsonOption = False,
) -> None:
    """Test whether groups differ, in any table of numbers.

    With --block, values are compared within each block, such as a seed. It also
    shows the paper's one-way analysis.

    \b
    Example:
      offramp stats table.csv --value value --group strategy --block seed \\
        --where split=test --where metric=accuracy --where exit=4 --same source

    docs/statistics.md explains both analyses and the notation.
    """
    from offramp.analysis.stats import Columns, analyze_by, rule
    from offramp.analysis.stats.pairwise import ALPHA
    from offramp.analysis.stats.text import plain
    from offramp.paper import FAMILIES

    if better not in (None, "higher", "lower"):
        raise OfframpError(f"--better is '{better}'; write higher or lower")
    columns = Columns(value, group, block, same, measured)
    split = [name.strip() for name in (by or "").split(",") if name.strip()]
    where = where or []
    frame = _filter(read(file, value), where)
    if frame.empty:
        raise OfframpError(f"{file} has no rows{' where ' + ' and '.join(where) if where else ''}")
    found = list(analyze_by(frame, columns, split, families=FAMILIES if families else None, alpha=ALPHA))
    if json:
        cells = [{"by": by_, **plain(analysis)} for by_, analysis in found]
        answer = {"alpha": ALPHA, "rule": rule(ALPHA, better), "analyses": cells}
        emit(answer)
        return
    for by_, analysis in found:
        _title(columns, by_)
        _analysis(analysis, columns)
    typer.echo(f"\nHow to read it. {rule(ALPHA, better)}")
    if len(found) > 1:
        typer.echo(f"p-values are adjusted within each of the {len(found)} analyses, not across them.")


MISSING = ("", "nan", "na", "n/a", "null", "none")


def read(file: Path, value: str) -> pd.DataFrame:
    """A table from a .csv or .parquet file; of a CSV, every column but `value` as text."""
    import pandas as pd
    import pyarrow.parquet as pq

    if not file.is_file():
        raise OfframpError(f"there is no file {file}; name a CSV or Parquet file")
    try:
        if file.suffix.lower() == ".parquet":
            pq.read_table(file).validate(full=True)  # text too, which pandas decodes later
            return pd.read_parquet(file)
        if file.suffix.lower() == ".csv":
            frame = pd.read_csv(file, dtype=str, keep_default_na=False)
            if value in frame.columns:
                frame[value] = _numbers(frame[value], file)
            return frame
    except OfframpError:
        raise
    except Exception as error:  # pandas and pyarrow raise whatever they like on damaged bytes
        reason = in_line(error)
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
        column, sign, wanted = condition.partition("=")
        if not sign:
            raise OfframpError(f"--where is '{condition}'; write COLUMN=VALUE")
        if column not in frame.columns:
            raise OfframpError(
                f"there is no column '{column}'{nearest(column, map(str, frame.columns))}"
            )
        frame = frame[frame[column].map(str) == wanted]
    return frame


def _title(columns: Columns, by: dict[str, str]) -> None:
    cell = ", ".join(f"{name} {value}" for name, value in by.items())
    title = f"{columns.value} by {columns.group}{' · ' + cell if cell else ''}"
    typer.echo(f"\n{title}\n{'=' * len(title)}")


def _analysis(found: Analysis, columns: Columns) -> None:
    from offramp.analysis.stats import Untested
    from offramp.analysis.stats.text import sentence

    means = table([columns.group], ["n", "mean", "sd"])
    for m in found.means:
        means.add_row(m.group, str(m.n), f"{m.mean:.6g}", "–" if m.sd is None else f"{m.sd:.3g}")
    console().print(means)
    for note in found.notes:
        typer.echo(f"Note: {note}.")
    if found.over_blocks is not None:
        typer.echo(f"\nDEFAULT: repeated measures over {columns.block}")
        if isinstance(found.over_blocks, Untested):
            typer.echo(sentence(found.over_blocks))
        else:
            _over_blocks(found.over_blocks)
    mark = "DEFAULT" if found.default == "one-way" else "BESIDE IT"
    typer.echo(f"\n{mark}: one-way analysis, the paper's way")
    if isinstance(found.one_way, Untested):
        typer.echo(sentence(found.one_way))
    else:
        _one_way(found.one_way, shared=found.default == "over blocks")


def _over_blocks(way: OverBlocks) -> None:
    from offramp.analysis.stats.text import sentence

    typer.echo(f"Assumes: {way.assumes}.")
    typer.echo(f"Overall: {sentence(way.anova)}")
    _pairs(way.pairs, "Paired differences; p adjusted after Holm, intervals simultaneous")
    _order(way.order)


def _one_way(way: OneWay, shared: bool) -> None:
    from offramp.analysis.stats.text import sentence

    warning = "; not so where blocks share anything" if shared else ""
    typer.echo(f"Assumes: {way.assumes}{warning}.")
    typer.echo(f"Overall: {sentence(way.anova)}")
    typer.echo(f"Normal residuals (Shapiro–Wilk): {sentence(way.shapiro)}")
    typer.echo(f"Equal variances (Levene, medians): {sentence(way.levene)}")
    _pairs(way.pairs, "Tukey's HSD; p adjusted, intervals simultaneous")
    _order(way.order)
    if way.unequal is not None:
        typer.echo("\nVariances differ (Levene rejects): Welch's analysis and Games–Howell")
        typer.echo(f"Assumes: {way.unequal.assumes}{warning}.")
        typer.echo(f"Overall: {sentence(way.unequal.welch)}")
        _pairs(way.unequal.pairs, "Games–Howell; p adjusted, intervals simultaneous")
        _order(way.unequal.order)


def _pairs(pairs: Pairs, title: str) -> None:
    from offramp.analysis.stats.pairwise import ALPHA, Pair
    from offramp.analysis.stats.text import pair_p

    typer.echo(f"\n{title}")
    paired = any(isinstance(p, Pair) and p.detectable is not None for p in pairs)
    more = ["detectable"] if paired else []
    shown = table(["pair"], ["difference", "95 % interval", *more, "p"])
    for pair in pairs:
        name = f"{pair.a} – {pair.b}"
        if isinstance(pair, Pair):
            interval = f"{pair.low:.4g} to {pair.high:.4g}"
            least = [] if pair.detectable is None else [f"{pair.detectable:.4g}"]
            shown.add_row(name, f"{pair.difference:.4g}", interval, *least, pair_p(pair))
        else:
            difference = "–" if pair.difference is None else f"{pair.difference:.4g}"
            shown.add_row(
                f"{name}\n  not tested: {pair.why}", difference, "–", *("–" for _ in more), "–"
            )
    console().print(shown)
    if paired:
        typer.echo("Detectable: the smallest true difference that is found with probability 80 %.")
    if any(isinstance(p, Pair) and p.p < ALPHA and p.low <= 0 <= p.high for p in pairs):
        typer.echo(
            "An interval includes zero although p < 0.05: Holm's test is a little stronger than "
            "simultaneous intervals."
        )


def _order(found: GroupOrder) -> None:
    typer.echo(f"In short: {found.text()}{f'   ({found.why})' if found.why else ''}")
