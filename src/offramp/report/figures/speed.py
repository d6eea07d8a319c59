"""A chart of measured speed: each network's time against the plain backbone's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from offramp.infer.timing import WHOLE, Timing
from offramp.report.figures.chart import Json, inline, number, panel, spec, word
from offramp.report.model import Figure

COLORS = ("#8c8c8c", "#b07c2a", "#1f6fb2")


def speed_figure(lines: Sequence[Timing], name: str) -> Figure:
    """Milliseconds an image of the plain network, of one that nothing leaves, and of the policy.

    name: of the trial, or a bundle's folder, of which the last part is shown: the rest is private.
    """
    title = Path(name).name
    caption = (
        "Milliseconds an image, by engine and number of images at once. Bars: the median; for single "
        "images under a policy, the mean of the exits' medians, by the shares of images that leave "
        "there. Ticks: the 95th percentile. Shorter is better."
    )
    fastest = max((line for line in lines if line.what in WHOLE), key=lambda line: line.rate)
    where = f"{fastest.what}, {fastest.engine}, batch {fastest.batch}"
    alt_text = f"Bars of time an image; the shortest is {where}."
    return Figure("speed", "more", title, caption, alt_text, spec(_chart(lines, title)))


def _chart(lines: Sequence[Timing], title: str) -> Json:
    rows = [
        (x.engine, f"batch {x.batch}", x.what, 1000 / x.rate, 1000 * x.p95 / x.batch, x.macs)
        for x in lines
        if x.what in WHOLE
    ]
    frame = pd.DataFrame(rows, columns=["engine", "batch", "network", "ms", "p95", "MACs"])
    hue = word("network", scale={"domain": list(WHOLE), "range": list(COLORS)}, legend=None)
    both = {"y": word("network", sort=list(WHOLE)), "color": hue}
    names = [word(name, name) for name in ("engine", "batch", "network")]
    tooltip = [*names, number("ms", "ms", format=".3g"), number("MACs", "MACs")]
    bars = {"x": number("ms", "milliseconds an image"), "tooltip": tooltip}
    late = {"type": "tick", "thickness": 1.5, "size": 11, "color": "#404040"}
    layers: list[Json] = [
        {"mark": {"type": "bar", "height": 11}, "encoding": both | bars},
        {"mark": late, "encoding": both | {"x": {"field": "p95", "type": "quantitative"}}},
    ]
    batches = [f"batch {count}" for count in sorted({line.batch for line in lines})]
    engines = ["eager", "compiled", "onnxruntime"]
    subtitle = "Bars: typical; ticks: 95th percentile. Shorter is better."
    return {
        "data": inline(frame),
        "facet": {"row": word("engine", sort=engines), "column": word("batch", sort=batches)},
        "spec": panel(layers, 230, 54),
        "resolve": {"scale": {"x": "independent"}},
        "title": {"text": title, "subtitle": subtitle},
    }
