"""Bundles on the Hugging Face hub: pushed with a model card, fetched and checked. `hf:USER/NAME` is one.

What is fetched is data: graphs, JSON and text. No code of a fetched bundle runs (what runs it is
offramp's own), and nothing is unpickled. Every file is checked against SHA256SUMS when it is opened.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from offramp.bundle import folder as bundle
from offramp.bundle.card import data_title
from offramp.bundle.runtime import SUMS
from offramp.errors import OfframpError, check_installed, in_line
from offramp.escape import markdown as escape

LIBRARY = ("the hub", "hub", "huggingface_hub")  # as `check_installed` takes it
PREFIX = "hf:"
PLACE = re.compile(r"(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})(?:@(?P<revision>[\w./-]{1,200}))?", re.ASCII)
LICENSE = re.compile(r"[a-z0-9.+-]{1,64}")
FILES = (
    *("SHA256SUMS", "stages.json", "policy.json", "labels.json", "preprocessing.json", "card.json"),
    *("card.md", "run.py", "scoring.py", "preprocessing.py", "on_*.py", bundle.REQUIREMENTS),
    *("expected.json", "stages/*.onnx", "stages/*.onnx.data", "stages/*.pte"),
)
"""All that a bundle may hold; anything else in a repository is left there."""
CARD = "README.md"  # the model card, as the hub shows it


def place(name: str) -> tuple[str, str | None]:
    """Repository and revision in `hf:USER/NAME@REVISION` or `USER/NAME`. Raises OfframpError for another
    form."""
    match = PLACE.fullmatch(name.removeprefix(PREFIX))
    if match is None or ".." in name:
        form = f"{PREFIX if name.startswith(PREFIX) else ''}USER/NAME"
        raise OfframpError(f"'{name}' is no place on the hub; give {form}, or {form}@REVISION")
    return match["repo"], match["revision"]


def local(name: str) -> Path | None:
    """The folder of `hf:USER/NAME`, fetched into the hub's cache; None for a name that is not a place on
    the hub. Its files are not checked yet; `runtime.Bundle` does. Raises OfframpError where it cannot be
    fetched."""
    if not name.startswith(PREFIX):
        return None
    check_installed(*LIBRARY)
    from huggingface_hub import snapshot_download

    repo, revision = place(name)
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # of the hub, the network, its cache: classes of many libraries
        raise _failed(f"{name} cannot be fetched", error) from error
    if not bundle.is_bundle(folder):
        raise OfframpError(f"{name} is no bundle: it has no {SUMS}; give one of offramp export")
    return folder


def push(
    folder: Path, name: str, license: str, dataset: str | None = None, private: bool = False
) -> str:
    """Put a bundle on the hub, in one commit, with a model card. This machine's name is left out of
    the card, and so is where files lay on it. name: as `place` takes it; a repository and
    a branch that are not there are created.

    Returns:
        The commit's address.

    Raises:
        OfframpError: The bundle is damaged, or the hub refuses it.
    """
    check_installed(*LIBRARY)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    repo, revision = place(name)
    api = HfApi(library_name="offramp")
    with tempfile.TemporaryDirectory(prefix="offramp-") as scratch:
        copy = Path(scratch)
        names = prepare(folder, copy, name, license, dataset)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            if revision is not None and not api.revision_exists(repo, revision):
                api.create_branch(repo, branch=revision)
            listed = set(api.list_repo_files(repo, revision=revision)) - set(names)
            operations = [CommitOperationAdd(each, copy / each) for each in names]
            stale = [
                CommitOperationDelete(each)
                for each in sorted(listed)
                if any(fnmatchcase(each, pattern) for pattern in FILES)  # of an earlier bundle
            ]
            done = api.create_commit(
                repo, [*operations, *stale], commit_message="A bundle of offramp", revision=revision
            )
        except Exception as error:  # as above
            raise _failed(f"{folder} cannot be pushed to {repo}", error) from error
    return str(done.commit_url)


def prepare(
    folder: Path, copy: Path, name: str, license: str, dataset: str | None = None
) -> tuple[str, ...]:
    """Put all that `push` would send into an empty folder, and send nothing; returns the files' names.
    Raises OfframpError for a damaged bundle, a name that is not a place, and an unknown license."""
    check_installed(*LIBRARY)
    place(name)
    if LICENSE.fullmatch(license) is None:
        raise OfframpError(f"the hub has no license '{license}'; give one such as mit or apache-2.0")
    names = sorted({*bundle.opened(folder, threads=1, pictures=False).files, SUMS})
    for each in names:
        (copy / each).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / each, copy / each)
    card = json.loads((copy / "card.json").read_text(encoding="utf-8"))
    title = data_title(card)
    places = sorted(_places({**card, "labels": ()}), key=len, reverse=True)  # one may begin with /
    card = _without_places(card, places)
    text = _unplaced((copy / "card.md").read_text(encoding="utf-8"), places)
    bundle.write_json(copy / "card.json", card)
    (copy / "card.md").write_text(text, encoding="utf-8")
    bundle.seal(copy)
    about = readme(card, title, text, name.removeprefix(PREFIX), license, dataset)
    (copy / CARD).write_text(about, encoding="utf-8")
    return (*names, CARD)


def _failed(what: str, error: Exception) -> OfframpError:
    reason = in_line(error)
    return OfframpError(f"{what} ({reason}); see to the name, the network and `hf auth login`")


def _places(value: Any) -> Iterator[str]:
    """Absolute paths in a card: of data, of weights, of somebody's own code."""
    if isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _places(each)
    elif isinstance(value, str) and value.startswith(("/", "~/")):
        yield value


def _without_places(value: Any, places: Sequence[str]) -> Any:
    """A card without this machine's name and its folders, which are nobody else's business."""
    if isinstance(value, Mapping):
        own = {k for k, v in value.items() if k == "root" or (k == "machine" and isinstance(v, str))}
        return {k: _without_places(v, places) for k, v in value.items() if k not in own}
    if isinstance(value, list):
        return [_without_places(each, places) for each in value]
    return _unplaced(value, places) if isinstance(value, str) else value


def _unplaced(text: str, places: Sequence[str]) -> str:
    """The text with each path cut down to its last part, in Markdown too."""
    for place in places:
        for written in (place, escape(place)):
            text = text.replace(written, PurePosixPath(written).name)
    return text


def readme(
    card: Mapping[str, Any], data: str, text: str, where: str, license: str, dataset: str | None
) -> str:
    """The model card: its YAML, what the bundle's own card says, and how to run it. data: what it is
    called; where: USER/NAME, or USER/NAME@REVISION."""
    from huggingface_hub import EvalResult, ModelCardData

    about: dict[str, Any] = {
        "task_type": "image-classification",
        "dataset_type": dataset or re.sub(r"[^\w.-]+", "-", data).strip("-") or "images",
        "dataset_name": data,
        "dataset_split": "test",
    }
    test = card["test"]
    exact = " (exact match)" if "labels" in test else ""
    metrics = {
        ("accuracy", f"Accuracy{exact}, images leaving early"): test["accuracy"]["value"],
        ("accuracy", f"Accuracy{exact} of the full network"): test["full_accuracy"]["value"],
        ("compute-share", "MACs against the network without exits"): test["mean_macs"]
        / card["plain_macs"],
    }
    results = [
        EvalResult(metric_type=kind, metric_name=title, metric_value=round(value, 6), **about)
        for (kind, title), value in metrics.items()
    ]
    model_card = ModelCardData(
        license=license,
        library_name="offramp",
        pipeline_tag="image-classification",
        tags=["early-exit", "onnx", card.get("precision", "float32")],
        datasets=[dataset] if dataset else None,
        metrics=["accuracy"],
        model_name=place(where)[0].partition("/")[2],
        eval_results=results,
    )
    return f"""---
{model_card.to_yaml()}
---

{text.rstrip()}

## From the hub

    pip install 'offramp[hub,onnx]'
    offramp predict {PREFIX}{where} photo.jpg

Or download this repository, and run it as above, without offramp.
"""
