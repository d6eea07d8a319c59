"""What is in a data set, and whether it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from offramp.api.answer import answer
from offramp.api.options import CommandOption, DataRoot, Settings
from offramp.data_spec import SPLITS
from offramp.errors import OfframpError
from offramp.files import check_replaceable, replacing, writing
from offramp.terminal import TextBlocks, TextTable
from offramp.units import counted

if TYPE_CHECKING:
    from offramp.data.audit import Audit, UnreadData
    from offramp.study.spec.models import Study

MOST = 20  # lines of one kind that are shown; JSON has all
MOST_CLASSES = 1000  # of the table, likewise
DataSetName = Annotated[str, CommandOption("NAME", names=("--data",))]


@answer
class DataReport:
    """A data set: images by split and class, sizes, duplicates, and what is wrong.

    Attributes:
        audit: What was counted, and what is wrong.
        title: What the data set is called.
        sheet: The file of the contact sheet; None without one.
    """

    audit: Audit
    title: str
    sheet: Path | None
    _name: str

    def as_json(self) -> dict[str, Any]:
        sheet = None if self.sheet is None else str(self.sheet)
        return {**audit_json(self._name, self.audit), "sheet": sheet}

    def document(self) -> TextBlocks:
        audit = self.audit
        facts = [
            (name, _sizes(split.sizes), str(len(split.damaged))) for name, split in audit.splits.items()
        ]
        return [
            self._by_class(),
            TextTable(["split", "stored sizes, width × height"], ["damaged"], facts),
            *self._pixels(),
            *self._copies(),
            *_wrong(audit),
            *(f"Note: {line}" for line in audit.notes),
            *([] if self.sheet is None else [f"Contact sheet: {self.sheet}"]),
        ]

    def _by_class(self) -> TextTable:
        splits = self.audit.splits
        rows = [
            (label, *(f"{split.by_class[label]:,}" for split in splits.values()))
            for label in self.audit.classes[:MOST_CLASSES]
        ]
        more = len(self.audit.classes) - MOST_CLASSES
        whole = "all classes" if "all" in self.audit.classes else "all"  # which a class may be called
        rows.append((whole, *(f"{split.images:,}" for split in splits.values())))
        note = f"and {more:,} more classes, in --json" if more > 0 else ""
        return TextTable(["class"], list(splits), rows, f"{self.title}: images by class and split", note)

    def _pixels(self) -> list[TextTable]:
        mean, deviation = self.audit.mean, self.audit.std
        if not mean:
            return []
        several = [f"channel {i}" for i in range(1, len(mean) + 1)]
        channels = {1: ["gray"], 3: ["red", "green", "blue"]}.get(len(mean), several)
        rows = [
            (name, *(f"{number:.4f}" for number in numbers))
            for name, numbers in (("mean", mean), ("deviation", deviation))
        ]
        return [TextTable([""], channels, rows, "Training pixels, from 0 to 1")]

    def _copies(self) -> list[TextTable]:
        copies = self.audit.copies
        if not copies:
            return []
        rows = [(", ".join(dict.fromkeys(c.splits)), "\n".join(c.names)) for c in copies[:MOST]]
        more = len(copies) - MOST
        note = f"and {more} more, in --json" if more > 0 else ""
        title = f"Duplicates: {counted(len(copies), 'image')}"
        return [TextTable(["splits", "files"], rows=rows, title=title, note=note)]


@answer
class DataCheck:
    """Whether anything is wrong with a data set. audit: what is."""

    audit: Audit
    _name: str

    @property
    def exit_code(self) -> int:
        return int(bool(self.audit.wrong))

    def as_json(self) -> dict[str, Any]:
        return audit_json(self._name, self.audit)

    def document(self) -> TextBlocks:
        audit = self.audit
        images = sum(split.images for split in audit.splits.values())
        wrong = counted(len(audit.wrong), "thing") if audit.wrong else "nothing"
        return [
            *_wrong(audit),
            *(f"Note: {line}" for line in audit.notes),
            f"{images:,} images, {len(audit.classes)} classes: {wrong} wrong",
        ]


def describe_data(
    name: DataSetName,
    *,
    data_root: DataRoot = None,
    augment: Annotated[str | None, CommandOption("YAML")] = None,
    settings: Settings = (),
    sheet: Path | None = None,
    no_sheet: bool = False,
) -> DataReport:
    """Describe a data set, and draw a contact sheet.

    It shows images by split and class, sizes, the channels' mean and deviation, duplicates (byte for
    byte), groups in several splits, and damaged files. Every image is opened once. Hashes of files are
    kept, so the next time is faster.

    The contact sheet shows training images as networks get them, with and without augmentation.

    Args:
        name: A data set: digits, cifar10, folder:path/to/images or my.py:make_data.
        data_root: The folder of the data set's files. By default the data set's folder in
            $OFFRAMP_DATA.
        augment: Augmentation to show: '[flip, crop]', '{resized_crop: [0.3, 1], jitter: 0.2}'.
        settings: Settings of a study to change, such as data.size=64.
        sheet: Where to write the contact sheet. By default NAME-sheet.png.
        no_sheet: Write no contact sheet.

    Raises:
        OfframpError: A folder, file or label cannot be used.

    On the command line:
        offramp data describe digits --augment '[flip, crop]'
        offramp data describe folder:photos --set data.size=64 --sheet photos.png
    """
    from offramp.data.images.sheet import sheet as drawn

    study = _study(name, data_root, augment, settings)
    title = _title(study)
    file = None if no_sheet else (sheet or Path(f"{title}-sheet.png"))
    if file is not None:
        check_replaceable(file)
    sources, audit = _opened(study)
    if file is not None:
        picture = drawn(sources, title, study.augment, study.seeds[0])
        with writing(file), replacing(file) as temporary:
            picture.save(temporary, format="PNG")
    return DataReport(audit, title, file, study.data.name)


def check_data(
    name: DataSetName,
    *,
    data_root: DataRoot = None,
    settings: Settings = (),
    fresh: bool = False,
) -> DataCheck:
    """Find what is wrong with a data set.

    These are faults: damaged files, images of several sizes without data.size, a class without images in
    a split, an image in two splits or in two classes. Notes are not faults.

    Exit codes: 0 without faults; 1 with faults; 2 if a folder, file or label cannot be used.

    A file with the same size, times and inode is not hashed again. `fresh` hashes every file and names
    those that have changed, for example by an edit, a careless copy or a failing disk.

    Args:
        name: A data set: digits, cifar10, folder:path/to/images or my.py:make_data.
        data_root: The folder of the data set's files. By default the data set's folder in
            $OFFRAMP_DATA.
        settings: Settings of a study to change, such as data.size=64.
        fresh: Hash every file again, unchanged ones too.

    Raises:
        OfframpError: A folder, file or label cannot be used.

    On the command line:
        offramp data check folder:photos --set data.size=64
        offramp data check chestxray14 --data-root nih --fresh
    """
    study = _study(name, data_root, None, settings)
    _, audit = _opened(study, fresh)
    return DataCheck(audit, study.data.name)


@answer
class SavedSplits:
    """A file that says which image is in which split.

    Attributes:
        out: The file.
        images: How many, by split.
        notes: What is odd.
        same: Whether validation is the test split.
    """

    out: Path
    images: Mapping[str, int]
    notes: Sequence[str]
    same: bool

    def as_json(self) -> dict[str, Any]:
        return {"out": str(self.out), "images": self.images, "notes": self.notes}

    def document(self) -> TextBlocks:
        counts = ", ".join(f"{name} {count:,}" for name, count in self.images.items())
        same = "; validation is test" if self.same else ""
        return [
            *(f"Note: {line}." for line in self.notes),
            f"{self.out}: {counts} images{same}.",
            f"In a study: data.split_file: {self.out}",
        ]


def split_data(
    name: DataSetName,
    *,
    out: Path,
    data_root: DataRoot = None,
    train_images: Annotated[int | None, CommandOption("N", least=1)] = None,
    test_images: Annotated[int | None, CommandOption("N", least=1)] = None,
    seed: Annotated[int | None, CommandOption("N", least=0)] = None,
    settings: Settings = (),
) -> SavedSplits:
    """Save which image is in which split.

    Use it to repeat a study elsewhere. The file lists every image of the four splits with its hash. A
    study that names it (data: {split_file: splits.json}) uses only these images. If an image is missing
    or has changed, the run stops and names it. --set gives the settings that choose images, such as
    data.validation.

    Args:
        name: A data set: digits, cifar10, folder:path/to/images or my.py:make_data.
        out: The split file to write, as JSON.
        data_root: The folder of the data set's files. By default the data set's folder in
            $OFFRAMP_DATA.
        train_images: Number of training images, held-out ones included.
        test_images: Number of test images.
        seed: The seed of the splits, data.split_seed. 0 by default.
        settings: Settings of a study to change, such as data.size=64.

    Raises:
        OfframpError: The file is there already, or a folder, file or label cannot be used.

    On the command line:
        offramp data split folder:photos --seed 3 --out splits.json
        offramp data split cifar10 --data-root cifar10 --train-images 5000 \\
          --out splits.json
    """
    from offramp.data.audit import open_data
    from offramp.data.split_file import save

    out = Path(out)
    if out.is_file():
        raise OfframpError(
            f"{out} is there already, and studies may use it; give another `out`, or remove it first"
        )
    check_replaceable(out)
    numbers = {"train_images": train_images, "test_images": test_images, "split_seed": seed}
    chosen = [f"data.{key}={number}" for key, number in numbers.items() if number is not None]
    study = _study(name, data_root, None, [*chosen, *settings])
    if study.data.split_file is not None:
        raise OfframpError(
            f"data.split_file names splits that are saved already ({study.data.split_file}); copy that "
            "file, or leave the setting out"
        )
    sources = open_data(study.data)
    save(out, sources.raw, sources.chosen)
    parts = sources.chosen.parts
    counts = {split: len(parts[split].rows) for split in SPLITS}
    return SavedSplits(out, counts, sources.remarks, parts["validation"] is parts["test"])


def _study(name: str, root: Path | None, augment: str | None, settings: Sequence[str]) -> Study:
    """A study of a data set, for all that is said of it."""
    from offramp.study.spec import file as spec

    source = {"name": name, **({} if root is None else {"root": str(root)})}
    overrides = [*([f"augment={augment}"] if augment is not None else []), *settings]
    study = {"strategies": ["baseline"], "backbone": "resnet18", "data": source}
    return spec.parse(study, "data", overrides)


def _opened(study: Study, fresh: bool = False) -> tuple[UnreadData, Audit]:
    from offramp.data.audit import audit, open_data, rehash
    from offramp.data.images import file_hashes

    before = file_hashes.every_manifest() if fresh else {}
    sources = open_data(study.data)
    changed = rehash(sources, before) if fresh else ()
    if changed:  # a hash may have chosen the split of its image
        sources = open_data(study.data)
    result = audit(sources)
    return sources, replace(result, wrong=(*changed, *result.wrong))


def _wrong(audit: Audit) -> list[str]:
    more = len(audit.wrong) - MOST
    rest = [f"and {more} more, in --json"] if more > 0 else []
    return [*(f"Wrong: {line}" for line in audit.wrong[:MOST]), *rest]


def _sizes(sizes: Any) -> str:
    """`32 × 32`, or the smallest and largest sides and how many sizes there are."""
    if len(sizes) == 1:
        ((width, height),) = sizes
        return f"{width} × {height}"
    if not sizes:
        return "–"
    widths, heights = zip(*sizes, strict=True)
    width, height = next(iter(sizes))
    return (
        f"{min(widths)}–{max(widths)} × {min(heights)}–{max(heights)}, {len(sizes)} sizes, "
        f"most often {width} × {height}"
    )


def audit_json(name: str, audit: Audit) -> dict[str, Any]:
    """An audit in the types of JSON."""
    record = asdict(audit)
    for split in record["splits"].values():
        split["sizes"] = [{"width": w, "height": h, "images": n} for (w, h), n in split["sizes"].items()]
    groups = {"group_in_another_split": record.pop("dropped")}
    lines = {key: record.pop(key) for key in ("wrong", "notes")}
    return {"data": name, **record, **groups, **lines}


def _title(study: Study) -> str:
    """What to call the data set: `cifar10`; of a folder of images its own name."""
    name = study.data.name.rpartition("/")[2].rpartition(":")[0] or study.data.name
    own = name in ("folder", "table") and study.data.root
    return Path(own).resolve().stem if own else name
