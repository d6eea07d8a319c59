"""What a watch says, in sentences and as a page: each sentence is left out where images are too few."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal

from jinja2 import Environment, StrictUndefined, Template

from offramp.bundle.expected import Expected
from offramp.policy.quality import Interval, anytime
from offramp.units import counted, duration, percent

if TYPE_CHECKING:
    from offramp.bundle.expected import ExpectedShare
    from offramp.serve.alarm import ShareChange
    from offramp.serve.watch import Watch

FEW = 30  # images below which no share of them is shown
TO_JUDGE = 500  # images without an alarm, before that is said to mean anything
NOTHING = "–"
UNKNOWN = Expected(0, (), ())  # of a bundle that does not say what to expect
UNIT = "\N{NO-BREAK SPACE}%"  # of which no line is broken
STILL = "Above is where they would have left; the table has where they leave."
FILES = {"page.css": "text/css", "page.js": "text/javascript"}
POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:"


@dataclass(frozen=True)
class WatchVerdict:
    """Whether images are still those of calibration, in words. state: `early` until enough came, `blind`
    where nothing can be said."""

    state: Literal["alarm", "calm", "early", "blind"]
    headline: str
    sentences: tuple[str, ...]


def verdict(watch: Watch) -> WatchVerdict:
    """The first thing that the page says."""
    alarm, options, expected = watch.alarm, watch.options, watch.expected
    if expected is None:
        why = "The bundle does not say what calibration expects. Export it again with this offramp."
        return WatchVerdict("blind", "Shares are counted, and compared with nothing.", (why,))
    if not options.alarm_every:
        return WatchVerdict("blind", "The alarm is off.", ("--alarm-every N turns it on.",))
    past: tuple[str, ...] = ()
    if watch.ended is not None:
        before = f"The last alarm ended {duration(watch.ended)} ago"
        past = (f"{before}: {counted(watch.alarms, 'alarm')} since the start.",)
    if alarm is not None:
        done = {
            "none": "Answers go on as before; --fall-back would have images leave later.",
            "raise": "Until it ends, thresholds are raised: images leave later and cost more. " + STILL,
            "all": "Until it ends, all images run to the last exit and cost the most. " + STILL,
        }[options.fall_back]
        sentences = (
            *map(changed, alarm.changes),
            f"Raised {duration(watch.stands)} ago. {done}",
            "Accuracy, savings and guarantees on the card are not of such images. Look at what comes in "
            "(camera, light, focus, preprocessing). If it is to stay, calibrate on such images.",
        )
        return WatchVerdict("alarm", "Alarm: images differ from those of calibration.", sentences)
    if watch.images < TO_JUDGE:
        so_far = f"{counted(watch.images, 'image')} so far, and {TO_JUDGE} are needed."
        return WatchVerdict("early", "Too early to say anything.", (so_far, *past))
    when = "since then" if past else "so far"
    sentences = (*past, f"Nothing {when} tells these images from those of calibration.")
    return WatchVerdict("calm", "No alarm.", sentences)


def changed(change: ShareChange) -> str:
    """A change in a sentence, with what calibration had."""
    share, now = change.share, percent(change.value)
    had = f"calibration had {within(share)}."
    more = change.value > share.value
    match share.of:
        case "exit":
            verb = "rose" if more else "fell"
            return f"The share of exit {share.exit} {verb} to {now}, of {change.images:,} images; {had}"
        case "score":
            sure = "less sure" if more else "surer"
            where = f"of {change.images:,} images there score below {share.below:.3g}"
            return f"Exit {share.exit} is {sure}: {now} {where}; {had}"
        case "disagreement":
            often = "more often" if more else "less often"
            runs = f"in {now} of {change.images:,} runs to the end"
            return f"Answers differ {often} from those of the last exit: {runs}; {had}"


def within(share: ExpectedShare | Interval) -> str:
    """A share and its bounds."""
    return f"{percent(share.value)} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def agreement(watch: Watch) -> tuple[str, ...]:
    """How often early answers are not those of the last exit, and whether that is as on calibration."""
    last, runs, share = watch.exits[-1], sum(watch.runs), watch.disagreement
    if not watch.options.shadow:
        return ("No image runs to the end to compare (--shadow 0).",)
    if share is None or runs < FEW:
        return (f"{counted(runs, 'image')} ran to the end so far, and {FEW} are needed.",)
    sentences = [
        f"Since the start, answers differ from those of exit {last} in {within(share)} of images, "
        f"by {runs:,} that ran to the end too."
    ]
    before = watch.expected and watch.expected.disagreement
    if before:
        verdict = "no difference shows"
        if share.low > before.high:
            verdict = "there are more now"
        elif share.high < before.low:
            verdict = "there are fewer now"
        sentences.append(f"Calibration had {within(before)}: {verdict}.")
    if watch.skipped:
        sentences.append(f"{watch.skipped:,} more were drawn and left out, as the server was busy.")
    return tuple(sentences)


def cell(value: float | ExpectedShare | Interval | None) -> str:
    """Of a table: a share, with its bounds where it has some."""
    if value is None:
        return NOTHING
    text = percent(value) if isinstance(value, int | float) else within(value)
    return text.replace(" %", UNIT)


def window_rows(watch: Watch) -> list[tuple[str, ...]]:
    """Of the table: what a row is of, its value in each window, and on calibration images."""
    expected, windows = watch.expected or UNKNOWN, watch.windows
    images = [window.images for window in windows]

    def row(
        name: str,
        values: list[float | None],
        before: float | ExpectedShare | None,
        counts: list[int] = images,
    ) -> tuple[str, ...]:
        pairs = zip(values, counts, strict=True)
        return (name, *(cell(value if count >= FEW else None) for value, count in pairs), cell(before))

    before = f"{expected.images:,}" if expected.images else NOTHING
    rows = [("images", *(f"{count:,}" for count in images), before)]
    for at, exit in enumerate(watch.exits):
        values = [window.shares[at] for window in windows]
        rows.append(row(f"left at exit {exit}", values, expected.of_exit(exit)))
    sure = [window.confidence for window in windows]
    rows.append(row("mean confidence", sure, expected.confidence))
    spent = [window.compute for window in windows]
    rows.append(row("compute, of the plain network's", spent, expected.compute))
    name, runs = f"differ from exit {watch.exits[-1]}", [window.runs for window in windows]
    differing = [window.disagreement for window in windows]
    return [*rows, row(name, differing, expected.disagreement, runs)]


def label_rows(watch: Watch) -> list[tuple[str, ...]]:
    """Exit, labels, accuracy with its interval, and that of calibration."""
    rows: list[tuple[str, ...]] = []
    expected = watch.expected or UNKNOWN
    for at, exit in enumerate(watch.exits):
        count, right = watch.labels.labeled[at], watch.labels.right[at]
        accuracy = anytime(right, count) if count else None
        before = expected.accuracy[at] if expected.accuracy else None
        rows.append((f"exit {exit}", f"{count:,}", cell(accuracy), cell(before)))
    return rows


def missing(expected: Expected | None) -> str:
    """What a bundle of an earlier offramp does not say."""
    if expected is None or expected.disagreement is not None:
        return ""
    return (
        "This bundle was exported by an earlier offramp: it has the shares of exits, but no scores, "
        "disagreement or accuracy to compare with. Export it again to watch these too."
    )


def html(watch: Watch, name: str, unreliable: tuple[str, ...]) -> str:
    """The page. name: of what is served; unreliable: why its answers are not to be trusted."""
    return template().render(
        name=name,
        unreliable=unreliable,
        verdict=verdict(watch),
        agreement=agreement(watch),
        windows=[window.name for window in watch.windows],
        rows=window_rows(watch),
        labels=label_rows(watch) if sum(watch.labels.labeled) else [],
        missing=missing(watch.expected),
        watch=watch,
        days=watch.options.alarm_every / (10 * 24 * 3600),
        few=FEW,
    )


@cache
def template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(asset("index.html.jinja"))


@cache
def asset(name: str) -> str:
    """The text of a file of the page."""
    return (resources.files(__package__) / "site" / name).read_text(encoding="utf-8")
