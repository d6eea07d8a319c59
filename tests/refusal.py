"""What a mistake must come to: an OfframpError of one line."""

from collections.abc import Callable
from typing import Any

import pytest

from offramp.errors import OfframpError


def refuses(message: str, function: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """That `function(*arguments, **options)` is refused in one line, in which `message`, a regular
    expression, is found; the line."""
    with pytest.raises(OfframpError, match=message) as caught:
        function(*arguments, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line
