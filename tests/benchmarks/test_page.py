"""docs/performance.md and docs/deployment.md say what results.json has."""

import json

import pytest

from benchmarks import page

ROWS = json.loads((page.HERE / "results.json").read_text())


def test_the_page_is_made_of_the_results() -> None:
    assert page.PAGE.read_text() == page.text(ROWS), "python -m benchmarks --page"
    assert page.GUIDE.read_text() == page.guide(ROWS), "python -m benchmarks --page"


@pytest.mark.parametrize("row", ["step overhead: resnet18 32 px", "share of peak: vgg16 32 px"])
def test_another_result_gives_another_page(row: str) -> None:
    others = [{**each, "ratio": 1234} if each["name"] == row else each for each in ROWS]
    assert page.text(others) != page.text(ROWS)


def test_the_table_of_runtimes_has_all_that_was_measured() -> None:
    note = "44,725,432 bytes; ms of each stage: 0.500, 0.400; logits within 1.2e-06 of PyTorch's; "
    row = {
        "name": "runtimes: executorch, bytes against onnxruntime",
        "note": f"{note}2 of 1,000 images otherwise, each a tie",
    }
    assert "| executorch | 44,725,432 | 0.500, 0.400 | 1.2e-06 | 2 of 1,000 |" in page.guide(
        [*ROWS, row]
    )


def test_a_result_that_is_missing_is_no_empty_cell() -> None:
    fewer = [each for each in ROWS if not each["name"].startswith("scale: offramp status")]
    with pytest.raises(KeyError, match="offramp status"):
        page.text(fewer)
