from pathlib import Path

import pytest

from chromium import browser

__all__ = ["browser", "made_up"]


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up report as a folder, its figures not drawn."""
    from page_contents import contents, numbers, write

    out = tmp_path_factory.mktemp("made-up") / "report"
    list(write(contents(), numbers(), out, formats=(), workers=0))
    return out
