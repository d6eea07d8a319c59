"""A chart of results, to look at and to keep."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from offramp.errors import OfframpError, nearest
from offramp.files import check_replaceable, write_whole
from offramp.report import evidence
from offramp.report.figures import FIGURES, draw
from offramp.report.model import Figure
from offramp.report.render.charts import FORMATS, rendered
from offramp.store.store import Store


@dataclass(frozen=True, repr=False)
class Chart:
    """What `Results.figure` returns; a notebook shows it. figure: the chart's specification.

    Example:
        >>> chart = results.figure("accuracy-by-exit")
        >>> chart.name
        'accuracy-by-exit-digits-cnn-digits'
        >>> chart.save("accuracy.svg")
        PosixPath('accuracy.svg')
    """

    figure: Figure

    @property
    def name(self) -> str:
        """A name for a file: what it shows, of which model and data."""
        return self.figure.name

    @property
    def caption(self) -> str:
        """How to read it."""
        return self.figure.caption

    @property
    def svg(self) -> str:
        """The chart as SVG."""
        return rendered(self.figure, ["svg"])["svg"].decode()

    def save(self, path: str | Path) -> Path:
        """Write it as its path ends: `.svg`, `.pdf`, `.png` or `.json` (Vega-Lite).

        Returns:
            The path.

        Raises:
            OfframpError: The path ends otherwise, or cannot be written.

        Example:
            >>> results.figure("accuracy-compute").save("accuracy-compute.svg")
            PosixPath('accuracy-compute.svg')
        """
        file = Path(path)
        ending = file.suffix[1:]
        if ending not in FORMATS:
            endings = ", ".join(f".{each}" for each in FORMATS)
            raise OfframpError(f"cannot write {file} as a chart; end it in one of {endings}")
        write_whole(file, rendered(self.figure, [ending])[ending])
        return file

    def __repr__(self) -> str:
        return f"{self.figure.title} ({self.name})\n{self.caption}"

    def _repr_svg_(self) -> str:
        return self.svg


def chart(store: Store, trials: Collection[str], name: str) -> Chart:
    """The chart of that name, of some trials: see `Results.figure`."""
    is_family = name in FIGURES
    drawn = draw(evidence.from_store(store.root, trials=trials), [name] if is_family else [])
    figures = [figure for figure in drawn.figures if is_family or figure.name == name]
    if len(figures) == 1:
        return Chart(figures[0])
    if figures:
        names = ", ".join(figure.name for figure in figures)
        raise OfframpError(f"'{name}' is {len(figures)} figures; name one of {names}")
    if is_family:
        raise OfframpError(f"{drawn.missing[0]}; run more, or draw another figure")
    longer = str(name).startswith(tuple(FIGURES))
    choices = [figure.name for figure in drawn.figures] if longer else FIGURES
    raise OfframpError(f"there is no figure '{name}'{nearest(str(name), choices)}")


def check_file(figure: Path) -> None:
    """Raise OfframpError, before the work, for a file that no chart can be written to."""
    if figure.suffix[1:] not in FORMATS:
        endings = ", ".join(f".{ending}" for ending in FORMATS)
        raise OfframpError(f"`figure` is {figure}; end it in one of {endings}")
    if not figure.parent.is_dir():
        raise OfframpError(f"there is no folder {figure.parent} for `figure`; make it first")
    check_replaceable(figure)


def saved(figure: Figure, path: Path) -> tuple[Path | None, OfframpError | None]:
    """Write the chart of a measurement, which is shown whether that succeeds or not: its file, or why
    there is none."""
    try:
        return Chart(figure).save(path), None
    except OfframpError as error:
        return None, error
