"""What a watch says, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from offramp.serve.watch import Watch

Rows = Sequence[tuple[list[str], float | None]]


class WatchGauges:
    """A collector of prometheus_client's. What no image says is absent."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        report = self._watch.report()
        exits, windows, expected = [*map(str, report.exits)], report.windows, report.expected
        shares = [
            ([window.name.replace(" ", ""), exit], share)
            for window in windows
            for exit, share in zip(exits, window.shares, strict=True)
        ]
        yield _family("window_exit_share", "Of images, by exit", shares, ("window", "exit"))
        for name, text in (
            ("images", "Images answered"),
            ("confidence", "Mean confidence of answers"),
            ("compute", "Mean MACs against the network without early exits"),
            ("disagreement", "Share of runs to the end that answer otherwise there"),
        ):
            rows = [([each.name.replace(" ", "")], getattr(each, name)) for each in windows]
            yield _family(f"window_{name}", f"{text}, lately", rows, ("window",))
        if expected is not None:
            for bound in ("value", "low", "high"):
                of = [(exit, expected.of_exit(int(exit))) for exit in exits]
                rows = [([exit], getattr(share, bound)) for exit, share in of if share]
                name = "expected_exit_share" + ("" if bound == "value" else f"_{bound}")
                yield _family(name, "Of calibration images", rows, ("exit",))
            before = expected.disagreement
            yield _family("expected_confidence", "On calibration images", [([], expected.confidence)])
            yield _family("expected_compute", "On calibration images", [([], expected.compute)])
            rows = [([], before and before.value)]
            yield _family("expected_disagreement", "On calibration images", rows)
        yield _family("alarm", "1 while an alarm stands", [([], float(report.alarm is not None))])
        yield CounterMetricFamily("offramp_alarms", "Since the start", value=report.alarms)
        share = report.disagreement
        for bound in ("value", "low", "high"):
            name = "disagreement" + ("" if bound == "value" else f"_{bound}")
            text = "Share of images whose answer is not the last exit's, since the start, within 95 %"
            yield _family(name, text, [([], None if share is None else getattr(share, bound))])
        for name, text, counts in (
            (
                "shadow_runs",
                "Images that ran to the end too, by the exit that they leave at",
                report.runs,
            ),
            ("labels", "Answers whose label came, by exit", report.labeled),
            ("labels_right", "Of these, those that were right", report.right),
        ):
            counter = CounterMetricFamily(f"offramp_{name}", text, labels=("exit",))
            for exit, count in zip(exits, counts, strict=True):
                counter.add_metric([exit], count)
            yield counter
        yield CounterMetricFamily(
            "offramp_shadow_skipped", "Left out, as too many waited", report.skipped
        )
        yield CounterMetricFamily("offramp_answers_lost", "Lines that --answers lacks", report.lost)


def _family(name: str, text: str, rows: Rows, labels: Sequence[str] = ()) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"offramp_{name}", text, labels=labels)
    for values, value in rows:
        if value is not None:
            family.add_metric(values, value)
    return family
