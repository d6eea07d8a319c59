"""Errors of others, as a user reads them."""

from __future__ import annotations

import pytest

from offramp.errors import in_line

REMOTE = """Initialization failure from server:
Traceback (most recent call last):
  File "proxier.py", line 772, in Datapath
    raise RuntimeError(
RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err
"""


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("no  such\nfile", "no such file"),
        ("", "ValueError"),
        ("x" * 300, "x" * 199 + "…"),
        (
            REMOTE,
            "Initialization failure from server: RuntimeError: Starting Ray client server failed. See "
            "ray_client_server_23000.err",
        ),
        ("Traceback (most recent call last)", "ValueError"),
    ],
)
def test_a_message_is_one_line_and_of_a_traceback_its_end(message: str, line: str) -> None:
    assert in_line(ValueError(message)) == line
