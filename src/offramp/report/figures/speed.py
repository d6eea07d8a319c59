"""A chart of measured speed: each network's time against the plain backbone's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from offramp.infer.timing import Timing
from offramp.report.model import Figure

WHOLE = ("plain", "nothing leaves", "policy")
COLORS = ("#8c8c8c", "#b07c2a", "#1f6fb2")


def speed_figure(lines: Sequence[Timing], name: str) -> Figure:
    """Milliseconds an image of the plain network, of one that nothing leaves, and of the policy."""
    caption = (
        "Milliseconds an image, by engine and number of images at once. Bars: typical, which for single "
        "images under a policy is the mean; ticks: the 95th percentile. Shorter is better."
    )
    fastest = max((line for line in lines if line.what in WHOLE), key=lambda line: line.rate)
    where = f"{fastest.what}, {fastest.engine}, batch {fastest.batch}"
    alt_text = f"Bars of time an image; the shortest is {where}."
    return Figure("speed", "more", name, caption, alt_text, _spec(lines, name))


def _spec(lines: Sequence[Timing], title: str) -> Mapping[str, Any]:
    rows = [
        {
            "engine": line.engine,
            "batch": f"batch {line.batch}",
            "network": line.what,
            "ms": 1000 / line.rate,
            "p95": 1000 * line.p95 / line.batch,
            "MACs": line.macs,
        }
        for line in lines
        if line.what in WHOLE
    ]
    base = alt.Chart(pd.DataFrame(rows)).encode(
        y=alt.Y("network:N", sort=list(WHOLE), title=None),
        color=alt.Color(
            "network:N", scale=alt.Scale(domain=list(WHOLE), range=list(COLORS)), legend=None
        ),
    )
    bars = base.mark_bar(height=11).encode(
        x=alt.X("ms:Q", title="milliseconds an image"),
        tooltip=["engine", "batch", "network", alt.Tooltip("ms:Q", format=".3g"), "MACs"],
    )
    late = base.mark_tick(thickness=1.5, size=11, color="#404040").encode(x="p95:Q")
    both = alt.layer(bars, late).properties(width=230, height=54)
    made = both.facet(
        row=alt.Row("engine:N", title=None, sort=["eager", "compiled", "onnxruntime"]),
        column=alt.Column(
            "batch:N", title=None, sort=[f"batch {n}" for n in sorted({li.batch for li in lines})]
        ),
    ).resolve_scale(x="independent")
    described = made.properties(
        title=alt.TitleParams(
            title, subtitle="Bars: typical; ticks: 95th percentile. Shorter is better."
        )
    )
    return described.to_dict()  # type: ignore[no-any-return]
