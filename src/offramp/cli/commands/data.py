"""`offramp data`: what is in a data set, and whether it can be trusted."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli.options import JsonOption, RootOption, SetOption, argument, flag, option
from offramp.cli.progress.reading import reading_shown
from offramp.cli.render import emit
from offramp.errors import OfframpError
from offramp.terminal import show, split, table
from offramp.units import counted

if TYPE_CHECKING:
    from offramp.data.audit import Audit, UnreadData
    from offramp.study.spec.models import Study

MOST = 20  # lines of one kind that are printed; JSON has all

data = typer.Typer(
    name="data",
    help="Describe, check or split a data set.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NameArgument = Annotated[
    str, argument("NAME", "A data set: digits, cifar10, folder:path/to/images or my.py:make_data.")
]
AugmentOption = Annotated[
    str | None,
    option(
        "YAML",
        "Augmentation to show: '[flip, crop]', '{resized_crop: [0.3, 1], jitter: 0.2}'.",
        "--augment",
    ),
]
SheetOption = Annotated[
    Path | None,
    option("FILE", "Where to write the contact sheet. By default NAME-sheet.png.", "--sheet"),
]


@data.command()
def describe(
    name: NameArgument,
    root: RootOption = None,
    augment: AugmentOption = None,
    set_: SetOption = None,
    sheet: SheetOption = None,
    no_sheet: Annotated[bool, flag("--no-sheet", "Write no contact sheet.")] = False,
    json: JsonOption = False,
) -> None:
    """Describe a data set, and draw a contact sheet.

    It shows images by split and class, sizes, the channels' mean and deviation, duplicates (byte for
    byte), groups in several splits, and damaged files. Every image is opened once. Hashes of files are
    kept, so the next time is faster.

    The contact sheet shows training images as networks get them, with and without augmentation.

    \b
    Examples:
      offramp data describe digits --augment '[flip, crop]'
      offramp data describe folder:photos --set data.size=64 --sheet photos.png
    """
    study, sources, audit = _opened(name, root, augment, set_)
    drawn = None if no_sheet else (sheet or Path(f"{_title(study)}-sheet.png"))
    if drawn is not None:
        _draw(study, sources, drawn)
    if json:
        emit({**_as_json(study, audit), "sheet": None if drawn is None else str(drawn)})
        return
    _print(study, audit)
    if drawn is not None:
        typer.echo(f"Contact sheet: {drawn}")


@data.command()
def check(
    name: NameArgument,
    root: RootOption = None,
    set_: SetOption = None,
    fresh: Annotated[bool, flag("--fresh", "Hash every file again, unchanged ones too.")] = False,
    json: JsonOption = False,
) -> None:
    """Find what is wrong with a data set.

    These are faults: damaged files, images of several sizes without data.size, a class without images in
    a split, an image in two splits or in two classes. Notes are not faults.

    Exit codes: 0 without faults; 1 with faults; 2 if a folder, file or label cannot be used.

    A file with the same size, times and inode is not hashed again. --fresh hashes every file and names
    those that have changed, for example by an edit, a careless copy or a failing disk.

    \b
    Examples:
      offramp data check folder:photos --set data.size=64
      offramp data check chestxray14 --data-root nih --fresh
    """
    study, _, audit = _opened(name, root, None, set_, fresh)
    if json:
        emit(_as_json(study, audit))
    else:
        for line in audit.wrong[:MOST]:
            typer.echo(f"Wrong: {line}")
        _rest(len(audit.wrong))
        for line in audit.notes:
            typer.echo(f"Note: {line}")
        images = sum(one.images for one in audit.splits.values())
        found = counted(len(audit.wrong), "thing") if audit.wrong else "nothing"
        typer.echo(f"{images:,} images, {len(audit.classes)} classes: {found} wrong")
    if audit.wrong:
        raise typer.Exit(1)


@data.command("split")
def split_(
    name: NameArgument,
    out: Annotated[Path, option("FILE", "The split file to write, as JSON.")],
    root: RootOption = None,
    train_images: Annotated[
        int | None, option("N", "Number of training images, held-out ones included.", min=1)
    ] = None,
    test_images: Annotated[int | None, option("N", "Number of test images.", min=1)] = None,
    seed: Annotated[
        int | None, option("N", "The seed of the splits, data.split_seed.  [default: 0]", min=0)
    ] = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Save which image is in which split.

    Use it to repeat a study elsewhere. The file lists every image of the four splits with its hash. A
    study that names it (data: {split_file: splits.json}) uses only these images. If an image is missing
    or has changed, the run stops and names it. --set gives the settings that choose images, such as
    data.validation.

    \b
    Examples:
      offramp data split folder:photos --seed 3 --out splits.json
      offramp data split cifar10 --data-root cifar10 --train-images 5000 \\
        --out splits.json
    """
    from offramp.data.audit import open_data
    from offramp.data.split_file import save
    from offramp.data_spec import SPLITS

    if out.is_file():
        raise OfframpError(
            f"{out} is there already, and studies may use it; give another --out, or remove it first"
        )
    given = {"train_images": train_images, "test_images": test_images, "split_seed": seed}
    chosen = [f"data.{key}={value}" for key, value in given.items() if value is not None]
    study = _study(name, root, None, [*chosen, *(set_ or [])])
    if study.data.split_file is not None:
        raise OfframpError(
            f"data.split_file names splits that are saved already ({study.data.split_file}); copy that "
            "file, or leave the setting out"
        )
    with reading_shown():
        sources = open_data(study.data)
        save(out, sources.raw, sources.chosen)
    parts = sources.chosen.parts
    counts = {name: len(parts[name].rows) for name in SPLITS}
    if json:
        emit({"out": str(out), "images": counts, "notes": sources.remarks})
        return
    for line in sources.remarks:
        typer.echo(f"Note: {line}.")
    listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    same = "; validation is test" if parts["validation"] is parts["test"] else ""
    typer.echo(f"{out}: {listed} images{same}.")
    typer.echo(f"In a study: data.split_file: {out}")


def _study(name: str, root: Path | None, augment: str | None, settings: list[str] | None) -> Study:
    """A study of a data set, for all that is said of it."""
    from offramp.study.spec import file as spec

    source = {"name": name, **({} if root is None else {"root": str(root)})}
    overrides = [*([f"augment={augment}"] if augment is not None else []), *(settings or [])]
    described = {"strategies": ["baseline"], "backbone": "resnet18", "data": source}
    return spec.parse(described, "data", overrides)


def _opened(
    name: str, root: Path | None, augment: str | None, settings: list[str] | None, fresh: bool = False
) -> tuple[Study, UnreadData, Audit]:
    from offramp.data.audit import audit, open_data, rehash
    from offramp.data.images import file_hashes

    study = _study(name, root, augment, settings)
    before = file_hashes.every_manifest() if fresh else {}
    with reading_shown():
        sources = open_data(study.data)
        changed = rehash(sources, before) if fresh else ()
        if changed:  # a hash may have chosen the split of its image
            sources = open_data(study.data)
        found = audit(sources)
    return study, sources, replace(found, wrong=(*changed, *found.wrong))


def _draw(study: Study, sources: UnreadData, path: Path) -> None:
    from offramp.data.images.sheet import sheet
    from offramp.files import replacing, writing

    augment = study.augment
    made = sheet(sources, _title(study), augment, study.seeds[0])
    with writing(path), replacing(path) as temporary:
        made.save(temporary, format="PNG")


def _print(study: Study, audit: Audit) -> None:
    names = list(audit.splits)
    rows = {
        label: [f"{audit.splits[name].by_class[label]:,}" for name in names] for label in audit.classes
    }
    whole = "all classes" if "all" in rows else "all"  # which a class may be called
    rows[whole] = [f"{audit.splits[name].images:,}" for name in names]
    show(split("class", names, rows), f"{_title(study)}: images by class and split")
    facts = [(name, _sizes(one.sizes), str(len(one.damaged))) for name, one in audit.splits.items()]
    show(table(["split", "stored sizes, width × height"], ["damaged"], facts))
    if audit.mean:
        values = {
            "mean": [f"{value:.4f}" for value in audit.mean],
            "deviation": [f"{value:.4f}" for value in audit.std],
        }
        channels = {1: ["gray"], 3: ["red", "green", "blue"]}.get(
            len(audit.mean), [f"channel {i}" for i in range(1, len(audit.mean) + 1)]
        )
        show(split("", channels, values), "Training pixels, from 0 to 1")
    if audit.copies:
        title = f"Duplicates: {counted(len(audit.copies), 'image')}"
        shown = [(", ".join(dict.fromkeys(c.splits)), "\n".join(c.names)) for c in audit.copies[:MOST]]
        more = len(audit.copies) - MOST
        note = f"and {more} more, in --json" if more > 0 else ""
        show(table(["splits", "files"], rows=shown), title, note)
    for line in audit.wrong[:MOST]:
        typer.echo(f"Wrong: {line}")
    _rest(len(audit.wrong))
    for line in audit.notes:
        typer.echo(f"Note: {line}")


def _rest(lines: int) -> None:
    if lines > MOST:
        typer.echo(f"and {lines - MOST} more, in --json")


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


def _as_json(study: Study, audit: Audit) -> dict[str, Any]:
    found = asdict(audit)
    for one in found["splits"].values():
        one["sizes"] = [{"width": w, "height": h, "images": n} for (w, h), n in one["sizes"].items()]
    groups = {"group_in_another_split": found.pop("dropped")}
    lines = {key: found.pop(key) for key in ("wrong", "notes")}
    return {"data": study.data.name, **found, **groups, **lines}


def _title(study: Study) -> str:
    """What to call the data set: `cifar10`; of a folder of images its own name."""
    name = study.data.name.rpartition("/")[2].rpartition(":")[0] or study.data.name
    own = name in ("folder", "table") and study.data.root
    return Path(own).resolve().stem if own else name
