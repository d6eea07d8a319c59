"""Quantities are read and written in one grammar, whoever asks for them."""

import pytest
from syrupy.assertion import SnapshotAssertion

from offramp import units
from offramp.units import MACS, PERCENT, SIZE, SPEED, TIME, Quantity
from wording import refusal


@pytest.mark.parametrize(
    ("kind", "texts", "value"),
    [
        (SIZE, ["1024", "1KiB", "1 kib", "1024 B", "1.024e3"], 1024),
        (SIZE, ["1.5 GB", "1.5g", "1500MB", "1500e6"], 1.5e9),
        (SIZE, ["0", "0GB"], 0),
        (MACS, ["2e6", "2M", "2MMAC", "2 mmacs", "2000k", "2.0E+6"], 2e6),
        (PERCENT, ["40%", " 40 %"], 40),
        (SPEED, ["14TFLOPS", "14 tflops", "7TMACs", "7e12 mac/s", "0.014 PFLOP/s"], 7e12),
        (TIME, ["90min", "1h30m", "1.5 h", "5400s", "5.4e3 s", "1h 30 min"], 5400),
        (TIME, ["5ms", " 5 MS ", "5000us", "5000µs", "0.005s"], 5e-3),
    ],
)
def test_what_is_the_same(kind: Quantity, texts: list[str], value: float) -> None:
    for text in texts:
        assert units.parse(text, kind, "--it") == pytest.approx(value)


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (SIZE, ["GiB", "-1GiB", "1 2", "1GB 1MB", "1s", "1e999"]),
        (MACS, ["0", "0.4", "40%", "lots", "-2M", "nan", "inf"]),
        (SPEED, ["14", "14T", "0TFLOPS", "-1TFLOPS", "TFLOPS", "14XFLOPS"]),
        (TIME, ["2", "h", "2h x", "-2h", "0h", "2hours", "nans"]),
        (PERCENT, ["0%", "40", "%"]),
    ],
)
def test_what_is_none_is_refused_by_name_with_an_example(
    kind: Quantity, texts: list[str], snapshot: SnapshotAssertion
) -> None:
    for text in ["", *texts]:
        assert refusal(units.parse, text, kind, "--it", also="auto") == snapshot


def test_a_share_may_be_in_percent(snapshot: SnapshotAssertion) -> None:
    for text in ("0.01", "1%", " 1 %", "1e-2", ".01"):
        assert units.share(text, "--it") == 0.01
    assert units.share("0%", "--it") == 0
    for text in ("", "%", "1 point", "1s", "1%%"):
        assert refusal(units.share, text, "--it", usual=0.9) == snapshot


def test_a_bare_number_is_of_seconds_where_that_is_said(snapshot: SnapshotAssertion) -> None:
    assert [units.seconds(text, "--it") for text in ("0", "0s", ".5", "20s", "1h30m")] == [
        *(0, 0, 0.5, 20, 5400)
    ]
    for text in ("", "soon", "0.5%"):
        assert refusal(units.seconds, text, "--it") == snapshot
    for text in ("0.9", "900ms", "-1", "nan", "inf"):
        assert refusal(units.seconds, text, "--it", least=1) == snapshot


def test_what_is_written() -> None:
    assert [units.duration(s) for s in (0, 59.94, 59.96, 200, 3599.6, 7500)] == [
        *("0.0 s", "59.9 s", "1 min 00 s", "3 min 20 s", "1 h 00 min", "2 h 05 min")
    ]
    assert [units.size(n) for n in (999.7, 999_960)] == ["1.0 kB", "1.0 MB"]
    assert [units.size(n) for n in (0, 999, 1000, 4.04e6, 5e12)] == [
        *("0 B", "999 B", "1.0 kB", "4.0 MB", "5000.0 GB")
    ]
    assert [units.macs(n) for n in (0, 999, 999_900, 1.25e9)] == ["0", "999", "1 M", "1.25 G"]
