"""Memory that processes share."""

from __future__ import annotations

import multiprocessing
import sys

import numpy as np
import pytest

from offramp.data.loading.prefetch import Slots


def _write(slots: Slots) -> None:
    for slot in range(slots.count):
        slots.array(slot, (2, 3))[:] = slot + 1


@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot fork")
def test_what_a_forked_process_writes_is_seen() -> None:
    slots = Slots.made(3, 8)
    assert slots is not None
    assert not slots.array(1, (8,)).any()
    child = multiprocessing.get_context("fork").Process(target=_write, args=(slots,))
    child.start()
    child.join()
    assert child.exitcode == 0
    for slot in range(3):
        expected = np.array([slot + 1] * 6 + [0, 0], dtype=np.uint8)
        assert np.array_equal(slots.array(slot, (8,)), expected)


def test_a_slot_has_its_size_and_no_more() -> None:
    slots = Slots.made(2, 6)
    assert slots is not None
    for slot, shape in ((0, (7,)), (2, (1,)), (-1, (1,))):
        with pytest.raises(ValueError, match="there are 2 of 6 bytes"):
            slots.array(slot, shape)


def test_too_much_is_none() -> None:
    assert Slots.made(2**40, 2**40) is None
    assert Slots.made(1, 2**62) is None
    assert Slots.made(1, 0) is None
