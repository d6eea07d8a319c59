"""Initial weights that come from a file or a public checkpoint, fitted to a network by name."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import torch
from torch import Tensor, nn

from offramp.errors import OfframpError, in_line, nearest
from offramp.nets.backbones import BACKBONES
from offramp.nets.checkpoint import TensorsByName, index_beside, read_file
from offramp.nets.cut.partition import Trunk
from offramp.nets.identity import tensors_digest
from offramp.nets.inside import Make

IMAGENET = "imagenet"
COUNTER = "num_batches_tracked"  # of batch normalization; old files lack it and nothing reads it
COMPILED = "_orig_mod."  # what torch.compile puts into names
REMEDY = "connect, or give a file: weights: path/to/file.pth"
REACHED = 2.0  # seconds in which a server of weights must answer


@dataclass(frozen=True, eq=False)
class Initial:
    """Weights that fit a network.

    tensors: by the network's names.  drawn: names of the network's that keep their random draw, as the
    source lacks them or has another shape.  left: names of the source's that the network has no use for.
    whole: whether nothing at all was drawn, so that the network answers as it comes.
    """

    tensors: Mapping[str, Tensor]
    drawn: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return not self.drawn

    @property
    def identity(self) -> dict[str, Any]:
        """For keys: the content, wherever it lies and in whatever form."""
        return {"content": tensors_digest(self.tensors), "whole": self.whole}

    def describe(self) -> str:
        """`120 tensors loaded; drawn anew: fc.weight, fc.bias; not used: 2`."""
        words = [f"{len(self.tensors)} tensors loaded"]
        if self.drawn:
            words.append(f"drawn anew: {_some(self.drawn)}")
        if self.left:
            words.append(f"in the file and not used: {_some(self.left)}")
        return "; ".join(words)


@dataclass(frozen=True)
class Published:
    """What images a public checkpoint was trained on. mean, std: that pixels from 0 to 1 were normalized
    with, a number a channel.  side: pixels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int


def published(backbone: str) -> Published:
    """Of the checkpoint that `imagenet` names, without fetching it.

    Raises OfframpError where nobody publishes one.
    """
    library, _, name = _upstream(backbone).partition("/")
    if not has_public(backbone):
        raise _no_public(backbone)
    if library == "torchvision":
        from torchvision import models  # late: it takes seconds to import

        seen = models.get_model_weights(name).DEFAULT.transforms()
        return Published(tuple(seen.mean), tuple(seen.std), seen.crop_size[0])
    import timm  # late: it takes seconds to import

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        raise _no_public(backbone)
    return Published(tuple(config.mean), tuple(config.std), config.input_size[1])


def read(source: str, backbone: str) -> Mapping[str, TensorsByName]:
    """The weights that `source` names: a file, or `imagenet` for the backbone's public checkpoint. Sets
    of tensors by their key in the file, as `read_file` finds them.

    Nothing is unpickled but tensors. Raises OfframpError for a file that is not there or holds
    something else, and for a checkpoint that cannot be had.
    """
    if source == IMAGENET:
        return {"": _public(backbone)}
    path = Path(source).expanduser()
    if not path.is_file():
        hint = f"; give a file, or '{IMAGENET}'" if path.suffix else nearest(source, [IMAGENET])
        raise OfframpError(f"there are no weights '{source}'{hint}")
    return read_file(index_beside(path) or path)


def at_hand(source: str, backbone: str) -> Path | None:
    """The file on this machine in which `read` would find the weights, without fetching anything; None
    where there is none."""
    if source != IMAGENET:
        return _there(Path(source).expanduser())
    library, _, name = _upstream(backbone).partition("/")
    if library == "torchvision":
        from torchvision import models  # late: it takes seconds to import

        known = name in models.list_models()
        return _fetched(models.get_model_weights(name).DEFAULT.url) if known else None
    if library != "timm":
        return None
    import timm  # late: it takes seconds to import

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        return None
    if config.hf_hub_id:
        from huggingface_hub import try_to_load_from_cache

        names = (config.hf_hub_filename, "model.safetensors", "pytorch_model.bin")
        found = (try_to_load_from_cache(config.hf_hub_id, file) for file in names if file)
        return next((Path(place) for place in found if isinstance(place, str)), None)
    return _fetched(config.url) if isinstance(config.url, str) else None


def _fetched(address: str) -> Path | None:
    """torch's cached file of that address."""
    return _there(Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2])


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None


def fitted(found: Mapping[str, TensorsByName], trunk: Trunk, source: str) -> Initial:
    """Of the sets that a file holds, the one that fits best, cut to what the trunk's module takes.

    Names may have a prefix (`module.`, `model.`). Every tensor that the network reads must be there with
    its shape. Two may differ: the classifier (other classes) and the first layer (other channels or
    another stem). They are then drawn anew.

    Raises OfframpError naming how many tensors fit, and the first that do not.
    """
    own = trunk.module.state_dict()
    fits = [
        (key, _fitting(set_, own), set_)
        for key, tensors in found.items()
        for set_ in _named_as(tensors, own)
    ]
    # Averaged weights (`state_dict_ema`) are another network; what was trained is meant.
    key, chosen, given = max(fits, key=lambda f: (len(f[1]), "ema" not in f[0]))
    first, classifier = next(iter(own)), trunk.classifier.state()
    read = classifier.keys() | {name for segment in trunk.segments for name in segment.state()}
    drawn, misfits = [], []
    for name in own:
        if name in chosen or name not in read or (name not in given and name.endswith(COUNTER)):
            continue
        if name in classifier or (name == first and name in given):
            drawn.append(name)
        else:
            misfits.append(name)
    if misfits:
        title, where = type(trunk.module).__name__, f" (of '{key}')" if key else ""
        there = {
            n: f"{list(given[n].shape)} there, {list(own[n].shape)} here" for n in own if n in given
        }
        shown = ", ".join(f"'{n}' ({there.get(n, 'not there')})" for n in misfits[:3])
        raise OfframpError(
            f"the weights '{source}' are of another network: {len(chosen)} of {len(own)} tensors of "
            f"{title} fit{where}; the first that do not: {shown}; give weights of the same architecture "
            "and options"
        )
    tensors = {name: tensor.to(own[name].dtype).clone() for name, tensor in chosen.items()}
    others = {k for k, other, _ in fits if k != key and len(other) == len(chosen)}
    left = (*(name for name in given if name not in own), *sorted(others))
    return Initial(tensors, tuple(drawn), left)


def _named_as(given: TensorsByName, own: TensorsByName) -> Iterator[TensorsByName]:
    """`given` by its own names, and by what is left of them behind the prefix that most of the network's
    names have there."""
    given = {name.replace(COMPILED, ""): tensor for name, tensor in given.items()}
    yield given
    ends = ((name, i + 1) for name in given for i, letter in enumerate(name) if letter == ".")
    prefixes = Counter(name[:i] for name, i in ends if name[i:] in own)
    if prefixes:
        best = max(prefixes, key=lambda prefix: (prefixes[prefix], "ema" not in prefix))
        yield {name.removeprefix(best): tensor for name, tensor in given.items()}


def _fitting(given: TensorsByName, own: TensorsByName) -> TensorsByName:
    return {n: given[n] for n, t in own.items() if n in given and given[n].shape == t.shape}


def starting(make: Make, tensors: Mapping[str, Tensor]) -> nn.Module:
    """`make()`'s module with `tensors` in it; the rest as drawn."""
    module = make()
    module.load_state_dict(dict(tensors), strict=False)
    return module


def _some(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _upstream(backbone: str) -> str:
    """What publishes the weights, as `torchvision/resnet18`; empty where nobody does."""
    return (BACKBONES[backbone].upstream if backbone in BACKBONES else backbone) or ""


def has_public(backbone: str) -> bool:
    """Whether torchvision or timm publishes weights of the backbone."""
    return _upstream(backbone).startswith(("torchvision/", "timm/"))


def _no_public(backbone: str) -> OfframpError:
    return OfframpError(
        f"there are no public weights of '{backbone}'; give a file: weights: path/to/file.pth"
    )


def _public(backbone: str) -> dict[str, Tensor]:
    """The checkpoint that torchvision or timm publishes, through their own caches."""
    upstream = _upstream(backbone)
    library, _, name = upstream.partition("/")
    if not has_public(backbone):
        raise _no_public(backbone)
    file = at_hand(IMAGENET, backbone)
    if file is None:
        _check_reached(_server(upstream), upstream)
    try:
        if library == "torchvision":
            from torchvision import models  # late: it takes seconds to import

            weights = models.get_model_weights(name).DEFAULT
            state: dict[str, Tensor] = weights.get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
            return state
        import timm  # late: it takes seconds to import

        given = None if file is None else {"file": str(file)}  # so that the hub is not asked
        net = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=given)
        return dict(net.state_dict())
    except Exception as error:  # a dozen kinds, of four libraries: no network, no such file, …
        reason = in_line(error)
        raise OfframpError(f"the weights of {upstream} cannot be had ({reason}); {REMEDY}") from error


def _server(upstream: str) -> str:
    """The address that the public checkpoint comes from."""
    library, _, name = upstream.partition("/")
    if library == "torchvision":
        from torchvision import models  # late: it takes seconds to import

        return str(models.get_model_weights(name).DEFAULT.url)
    import timm  # late: it takes seconds to import

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or config.hf_hub_id:
        from huggingface_hub.constants import ENDPOINT

        return str(ENDPOINT)
    return str(config.url)


def _check_reached(address: str, upstream: str) -> None:
    """Raises OfframpError where the server, or the proxy before it, does not answer within REACHED
    seconds. Libraries try again for minutes."""
    url = urlsplit(address)
    proxy = urlsplit(getproxies().get(url.scheme, "")) if not proxy_bypass(url.hostname or "") else None
    asked = proxy if proxy is not None and proxy.hostname else url
    place = (asked.hostname or "", asked.port or {"http": 80}.get(asked.scheme, 443))
    answers: list[str] = []

    def ask() -> None:
        try:
            with socket.create_connection(place, timeout=REACHED):
                answers.append("")
        except OSError as error:
            answers.append(str(error) or type(error).__name__)

    asking = Thread(target=ask, daemon=True)  # looking up a name has no time limit of its own
    asking.start()
    asking.join(REACHED)
    reason = answers[0] if answers else f"no answer in {REACHED:g} s"
    if reason:
        raise OfframpError(
            f"the weights of {upstream} cannot be had ({place[0]} cannot be reached: {reason}); {REMEDY}"
        )
