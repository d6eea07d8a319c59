from __future__ import annotations

from pathlib import Path

from pictures import noise, read, save, tree

from offramp.data.load import notes


def test_what_a_person_should_know(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets")
    assert notes(read("folder", root).provenance) == []
    for i in range(40):
        save(root / "train/cat" / f"q{i}_.png", noise(1000 + i))
        save(root / "train/dog" / f"r{i}_.png", noise(2000 + i))
    save(root / "test/dog/p9_9.png", noise(24))  # as test/cat/p0_0.png
    (root / "test/cat/p8_8.png").write_bytes(b"")
    data = read("folder", root, group=r"([a-z]\d+)_", on_error="skip")
    assert notes(data.provenance) == [
        "24 images of train left out: 6 of its groups are in another split.",
        f"1 image of test skipped as damaged, {root / 'test/cat/p8_8.png'} first.",
        "1 image of test equal to another of it, byte for byte.",
    ]


def test_across_splits_and_of_old_records() -> None:
    assert notes({"duplicates": {"test in train": 2}}) == [
        "2 images of test equal to one of train, byte for byte."
    ]
    assert notes({}) == []
