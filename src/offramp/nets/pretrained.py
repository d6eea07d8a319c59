"""Initial weights that come from a file or a public checkpoint, fitted to a network by name."""

from __future__ import annotations

import pickle
import re
import socket
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from offramp.errors import OfframpError, in_line, nearest
from offramp.files import ARRAYS, RECORDS, check_regular, inside, read_regular
from offramp.hashing import from_text
from offramp.nets.backbones import BACKBONES
from offramp.nets.cut.partition import Trunk
from offramp.nets.identity import tensors_digest
from offramp.nets.inside import Make
from offramp.units import counted

IMAGENET = "imagenet"
COUNTER = "num_batches_tracked"  # of batch normalization; old files lack it and nothing reads it
COMPILED = "_orig_mod."  # what torch.compile puts into names
REMEDY = "connect, or give a file: weights: path/to/file.pth"
REACHED = 2.0  # seconds in which a server of weights must answer
PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar")
INDEX = ".index.json"
_DEEPEST = 3  # mappings in mappings that are looked into

TensorsByName = Mapping[str, Tensor]


def read(source: str, backbone: str) -> Mapping[str, TensorsByName]:
    """The weights that `source` names, as sets of tensors by their key in the file.

    Nothing is unpickled but tensors. source: a file, or `imagenet` for the backbone's public checkpoint.

    Raises:
        OfframpError: For a missing file, one that holds something else, and a checkpoint that cannot be
            had.
    """
    if source == IMAGENET:
        return {"": _public(backbone)}
    path = Path(source).expanduser()
    if not path.is_file():
        hint = f"; give a file, or '{IMAGENET}'" if path.suffix else nearest(source, [IMAGENET])
        raise OfframpError(f"there are no weights '{source}'{hint}")
    return _read_file(_index_of(path) or path)


def at_hand(source: str, backbone: str) -> Path | None:
    """The file on this machine in which `read` would find the weights, without fetching anything; None
    where there is none."""
    if source != IMAGENET:
        return _if_file(Path(source).expanduser())
    checkpoint = _checkpoint(backbone)
    return checkpoint.file() if checkpoint else None


# Public checkpoints


@dataclass(frozen=True)
class Published:
    """What images a public checkpoint was trained on."""

    mean: tuple[float, ...]  # that pixels from 0 to 1 were normalized with, a number a channel
    std: tuple[float, ...]  # the same
    side: int  # px


@dataclass(frozen=True)
class _Torchvision:
    """The weights that torchvision publishes for one of its models: what images they saw, in which file
    they are already, where they come from, and the weights, fetched where they are not here yet."""

    name: str

    @property
    def _weights(self) -> Any:
        """None of what is no classifier of torchvision's."""
        from torchvision import models  # late: it takes seconds to import

        listed = self.name in models.list_models(module=models)
        return models.get_model_weights(self.name).DEFAULT if listed else None

    def published(self) -> Published | None:
        if (weights := self._weights) is None:
            return None
        images = weights.transforms()
        return Published(tuple(images.mean), tuple(images.std), images.crop_size[0])

    def file(self) -> Path | None:
        return None if (weights := self._weights) is None else _downloaded(weights.url)

    def address(self) -> str:
        return str(self._weights.url)

    def state(self) -> dict[str, Tensor]:
        return dict(self._weights.get_state_dict(progress=False, check_hash=True, weights_only=True))


@dataclass(frozen=True)
class _Timm:
    """The same of timm, which knows many models and has no weights of them."""

    name: str

    @property
    def _config(self) -> Any:
        import timm  # late: it takes seconds to import

        config = timm.get_pretrained_cfg(self.name, allow_unregistered=True)
        return config if config is not None and config.has_weights else None

    def published(self) -> Published | None:
        if (config := self._config) is None:
            return None
        return Published(tuple(config.mean), tuple(config.std), config.input_size[1])

    def file(self) -> Path | None:
        if (config := self._config) is None:
            return None
        if not config.hf_hub_id:
            return _downloaded(config.url) if isinstance(config.url, str) else None
        from huggingface_hub import try_to_load_from_cache

        names = (config.hf_hub_filename, "model.safetensors", "pytorch_model.bin")
        files = (try_to_load_from_cache(config.hf_hub_id, name) for name in names if name)
        return next((Path(file) for file in files if isinstance(file, str)), None)

    def address(self) -> str:
        if not self._config.hf_hub_id:
            return str(self._config.url)
        from huggingface_hub.constants import ENDPOINT

        return str(ENDPOINT)

    def state(self) -> dict[str, Tensor]:
        import timm  # late: it takes seconds to import

        file = self.file()
        overlay = None if file is None else {"file": str(file)}  # so that the hub is not contacted
        net = timm.create_model(self.name, pretrained=True, pretrained_cfg_overlay=overlay)
        return dict(net.state_dict())


_Checkpoint = _Torchvision | _Timm
_LIBRARIES: Mapping[str, type[_Checkpoint]] = {"torchvision": _Torchvision, "timm": _Timm}


def _upstream(backbone: str) -> str:
    """What publishes the weights, as `torchvision/resnet18`; empty where nobody does."""
    return (BACKBONES[backbone].upstream if backbone in BACKBONES else backbone) or ""


def _checkpoint(backbone: str) -> _Checkpoint | None:
    library, slash, name = _upstream(backbone).partition("/")
    return _LIBRARIES[library](name) if slash and library in _LIBRARIES else None


def has_public(backbone: str) -> bool:
    """Whether torchvision or timm publishes weights of the backbone."""
    return _checkpoint(backbone) is not None


def published(backbone: str) -> Published:
    """Of the checkpoint that `imagenet` names, without fetching it.

    Raises:
        OfframpError: Where nobody publishes one.
    """
    checkpoint = _checkpoint(backbone)
    images = checkpoint.published() if checkpoint else None
    if images is None:
        raise _no_public(backbone)
    return images


def _no_public(backbone: str) -> OfframpError:
    remedy = "correct the name, or give a file" if "/" in backbone else "give a file"
    return OfframpError(
        f"there are no public weights of '{backbone}'; {remedy}: weights: path/to/file.pth"
    )


def _public(backbone: str) -> dict[str, Tensor]:
    """The checkpoint that torchvision or timm publishes."""
    checkpoint = _checkpoint(backbone)
    if checkpoint is None or checkpoint.published() is None:
        raise _no_public(backbone)
    upstream = _upstream(backbone)
    if checkpoint.file() is None:  # offline, a library would try for a minute and a half
        _check_reached(checkpoint.address(), upstream)
    try:
        return checkpoint.state()
    except Exception as error:  # a dozen kinds, of four libraries: no network, no such file, …
        reason = in_line(error)
        raise OfframpError(f"the weights of {upstream} cannot be had ({reason}); {REMEDY}") from error


def _downloaded(address: str) -> Path | None:
    """torch's cached file of that address."""
    return _if_file(Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2])


def _if_file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _check_reached(address: str, upstream: str) -> None:
    """Raises OfframpError where the server, or the proxy before it, does not answer within REACHED
    seconds. Libraries try again for minutes."""
    url = urlsplit(address)
    proxy = urlsplit(getproxies().get(url.scheme, "")) if not proxy_bypass(url.hostname or "") else None
    server = proxy if proxy is not None and proxy.hostname else url
    place = (server.hostname or "", server.port or {"http": 80}.get(server.scheme, 443))
    answers: list[str] = []

    def connect() -> None:
        try:
            with socket.create_connection(place, timeout=REACHED):
                answers.append("")
        except OSError as error:
            answers.append(str(error) or type(error).__name__)

    connecting = Thread(target=connect, daemon=True)  # looking up a name has no time limit of its own
    connecting.start()
    connecting.join(REACHED)
    reason = answers[0] if answers else f"no answer in {REACHED:g} s"
    if reason:
        raise OfframpError(
            f"the weights of {upstream} cannot be had ({place[0]} cannot be reached: {reason}); {REMEDY}"
        )


# Fitted to a network


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """Weights that fit a network."""

    tensors: Mapping[str, Tensor]  # by the network's names
    # names of the network's that stay at their random draw, as the source lacks them or has another
    # shape
    drawn: tuple[str, ...]
    left: tuple[str, ...]  # names of the source's that the network has no use for

    @property
    def identity(self) -> dict[str, Any]:
        """For keys: the content, wherever it lies and in whatever form; and whether nothing at all was
        drawn, so that the network answers as it comes."""
        return {"content": tensors_digest(self.tensors), "whole": not self.drawn}

    def describe(self) -> str:
        """`120 tensors loaded; drawn anew: fc.weight, fc.bias; not used: 2`."""
        words = [f"{len(self.tensors)} tensors loaded"]
        if self.drawn:
            words.append(f"drawn anew: {_some(self.drawn)}")
        if self.left:
            words.append(f"in the file and not used: {_some(self.left)}")
        return "; ".join(words)


def fit_to(trunk: Trunk, sets: Mapping[str, TensorsByName], source: str) -> InitialWeights:
    """Of the sets that a file holds, the one that fits best, cut to what the trunk's module takes.

    Names may have a prefix (`module.`, `model.`). Every tensor that the network reads must be there with
    its shape. Two may differ: the classifier (other classes) and the first layer (other channels or
    another stem). They are then drawn anew. source: how errors name the file.

    Raises:
        OfframpError: Naming how many tensors fit, and the first that do not.
    """
    own = trunk.module.state_dict()
    fits = _fits(sets, own)
    key, chosen, tensors = fits[0]
    first, classifier = next(iter(own)), trunk.classifier.state()
    read = classifier.keys() | {name for segment in trunk.segments for name in segment.state()}
    drawn, misfits = [], []
    for name in own:
        if name in chosen or name not in read or (name not in tensors and name.endswith(COUNTER)):
            continue
        if name in classifier or (name == first and name in tensors):
            drawn.append(name)
        else:
            misfits.append(name)
    if misfits:
        title, where = type(trunk.module).__name__, f" (of '{key}')" if key else ""
        shapes = {
            n: f"{list(tensors[n].shape)} there, {list(own[n].shape)} here" for n in own if n in tensors
        }
        listed = ", ".join(f"'{n}' ({shapes.get(n, 'not there')})" for n in misfits[:3])
        raise OfframpError(
            f"the weights '{source}' are of another network: {len(chosen)} of {len(own)} tensors of "
            f"{title} fit{where}; the first that do not: {listed}; give weights of the same "
            "architecture and options"
        )
    others = {k for k, other, _ in fits if k != key and len(other) == len(chosen)}
    return InitialWeights(
        tensors={name: tensor.to(own[name].dtype).clone() for name, tensor in chosen.items()},
        drawn=tuple(drawn),
        left=(*(name for name in tensors if name not in own), *sorted(others)),
    )


def _named_as(tensors: TensorsByName, own: TensorsByName) -> Iterator[TensorsByName]:
    """`tensors` by their own names, and by what is left of them behind the prefix that most of the
    network's names have there."""
    tensors = {name.replace(COMPILED, ""): tensor for name, tensor in tensors.items()}
    yield tensors
    ends = ((name, i + 1) for name in tensors for i, letter in enumerate(name) if letter == ".")
    prefixes = Counter(name[:i] for name, i in ends if name[i:] in own)
    if prefixes:
        best = max(prefixes, key=lambda prefix: (prefixes[prefix], "ema" not in prefix))
        yield {name.removeprefix(best): tensor for name, tensor in tensors.items()}


def _fits(
    sets: Mapping[str, TensorsByName], own: TensorsByName
) -> list[tuple[str, TensorsByName, TensorsByName]]:
    """Of each set, under each of its names, its key, what fits a network's `own` tensors, and all of it;
    first where most fits."""
    fits = [
        (key, {n: named[n] for n, t in own.items() if n in named and named[n].shape == t.shape}, named)
        for key, stored in sets.items()
        for named in _named_as(stored, own)
    ]
    # Averaged weights (`state_dict_ema`) are another network; what was trained is meant.
    return sorted(fits, key=lambda fit: (-len(fit[1]), "ema" in fit[0]))


def fill(module: nn.Module, source: str) -> str:
    """Put the weights of a file into a module, all of them; how many these were, and which in the file
    the module lacks, in words. source: the file, as `read` takes it; names may have a prefix.

    Raises:
        OfframpError: It lacks a tensor of the module, or has one of another shape.
    """
    own = module.state_dict()
    _, tensors, named = _fits(read(source, ""), own)[0]
    absent = [name for name in own if name not in tensors and not name.endswith(COUNTER)]
    if absent:
        raise OfframpError(
            f"the weights '{source}' are of another network: of {len(own)} tensors of "
            f"{type(module).__name__} they lack {_some(absent)}, or have it in another shape; "
            "give those that it was trained to, heads included"
        )
    module.load_state_dict(dict(tensors), strict=False)
    others = sorted(named.keys() - tensors.keys())
    beside = f"; passed over {counted(len(others), 'other')} in it: {_some(others)}" if others else ""
    return f"{len(tensors)} of {counted(len(own), 'tensor')} loaded from {source}{beside}"


def starting(make: Make, tensors: Mapping[str, Tensor]) -> nn.Module:
    """`make()`'s module with `tensors` in it; the rest as drawn."""
    module = make()
    module.load_state_dict(dict(tensors), strict=False)
    return module


def _some(names: Collection[str]) -> str:
    first = ", ".join(list(names)[:4])
    return first if len(names) <= 4 else f"{first} and {len(names) - 4} more"


# Files


class _Skipped:
    """Stands for a value beside the weights that nobody reads, so that its own code need not run."""

    def __init__(self, *_: Any) -> None: ...

    def __new__(cls, *_: Any) -> _Skipped:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None: ...


_BESIDE: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Skipped, name)
    for name in (
        *(
            f"numpy.{core}.multiarray.{f}"
            for core in ("core", "_core")
            for f in ("scalar", "_reconstruct")
        ),
        "numpy.dtype",
        "numpy.ndarray",
        *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
        "argparse.Namespace",
        "pathlib.PosixPath",
        "pathlib._local.PosixPath",
        "pathlib.WindowsPath",
    )
]
"""What training scripts save beside the weights, by name: read as nothing."""


def _read_file(path: Path) -> dict[str, TensorsByName]:
    """Every set of named tensors in a file, by its key there; of a file that is one set, by ``."""
    try:
        check_regular(path, ARRAYS)
    except OSError as error:
        raise OfframpError(f"{path} cannot be read ({error.strerror}); give another file") from error
    if path.name.endswith(INDEX):
        shards = [tensors for shard in _shards(path) for tensors in _read_file(shard).values()]
        return {"": {name: tensor for tensors in shards for name, tensor in tensors.items()}}
    if path.suffix == ".safetensors":
        try:
            return {"": safetensors.torch.load_file(path)}
        except (SafetensorError, OSError) as error:
            raise OfframpError(f"{path} is no safetensors file ({error}); give another") from error
    if path.suffix not in PICKLED:
        raise OfframpError(
            f"{path} must end in one of .safetensors, {', '.join(PICKLED)}, {INDEX}; rename it"
        )
    value = _unpickled(path)
    sets = dict(_sets(value, (), set()))
    if not sets:
        kind = type(value).__name__
        raise OfframpError(
            f"{path} holds a {kind} without tensors; give a state_dict: names and tensors"
        )
    return sets


def _index_of(path: Path) -> Path | None:
    """The index of the checkpoint that `path` is one of several files of, if it is."""
    stem = re.fullmatch(r"(.+)-\d+-of-\d+", path.stem)
    index = path.with_name(f"{stem[1]}{path.suffix}{INDEX}") if stem else None
    return index if index is not None and index.is_file() else None


def _shards(index: Path) -> Iterator[Path]:
    """The files that an index names, each once."""
    try:
        listed = from_text(read_regular(index, RECORDS))["weight_map"].values()
        names = list(dict.fromkeys(str(name) for name in listed))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise OfframpError(f"{index} is no index of weights ({error!r}); give another file") from error
    for name in names:
        try:
            inside(index.parent, name)
        except ValueError:
            raise OfframpError(f"{index} names {name}, which lies outside its folder") from None
        if not (index.parent / name).is_file() or name.endswith(INDEX):
            raise OfframpError(f"{index} names {name}, which is not beside it; fetch it too")
        yield index.parent / name


def _sets(value: Any, at: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, TensorsByName]]:
    """The mappings of names to tensors in `value`, whatever else stands beside the tensors."""
    if not isinstance(value, Mapping) or len(at) > _DEEPEST or id(value) in seen:
        return
    seen.add(id(value))
    own = {k: t for k, t in value.items() if isinstance(k, str) and _has_numbers(t)}
    if own:
        yield ".".join(at), own
    for key, inner in value.items():
        if isinstance(key, str):
            yield from _sets(inner, (*at, key), seen)


def _has_numbers(value: Any) -> bool:
    """Whether it is a tensor of one number each, in memory: not sparse, quantized or without content."""
    if not isinstance(value, Tensor) or value.is_quantized:
        return False
    return value.layout == torch.strided and value.device.type == "cpu"


def _unpickled(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):  # torch packs nothing, and what it unpacks has no bounds
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                    raise ValueError("it is compressed, and weights are not")
        with torch.serialization.safe_globals(_BESIDE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({name[1]})" if name else ""
        raise OfframpError(
            f"{path} holds more than tensors{what}, and running code from a file is refused; "
            "save its state_dict, best as .safetensors"
        ) from error
    except Exception as error:  # the unpickler raises whatever it likes on damaged bytes
        reason = in_line(error)
        raise OfframpError(f"{path} cannot be read as weights ({reason}); give another file") from error
