"""Initial weights that come from a file or a public checkpoint, fitted to a network by name."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from offramp.errors import OfframpError, nearest
from offramp.nets.backbones import BACKBONES
from offramp.nets.identity import tensors_digest
from offramp.nets.network import Make

IMAGENET = "imagenet"
PICKLED = (".pth", ".pt", ".bin", ".ckpt")
NESTED = ("state_dict", "model_state_dict", "model", "net")  # what a checkpoint calls its weights
COUNTER = "num_batches_tracked"  # of batch normalization; old files lack it and nothing reads it


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


def read(source: str, backbone: str) -> dict[str, Tensor]:
    """The weights that `source` names: a file, or `imagenet` for the backbone's public checkpoint.

    Nothing is unpickled but tensors. Raises OfframpError for a file that is not there or holds
    something else, and for a checkpoint that cannot be had.
    """
    if source == IMAGENET:
        return _public(backbone)
    path = Path(source).expanduser()
    if not path.is_file():
        hint = f"; give a file, or '{IMAGENET}'" if path.suffix else nearest(source, [IMAGENET])
        raise OfframpError(f"there are no weights '{source}'{hint}")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (SafetensorError, OSError) as error:
            raise OfframpError(f"{path} is no safetensors file ({error}); give another") from error
    if path.suffix not in PICKLED:
        raise OfframpError(f"{path} ends in none of .safetensors, {', '.join(PICKLED)}; rename it")
    return _state(_unpickled(path), path)


def at_hand(source: str, backbone: str) -> Path | None:
    """The file on this machine in which `read` would find the weights, without fetching anything."""
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


def fitted(
    given: Mapping[str, Tensor], module: nn.Module, classifier: Collection[str], source: str
) -> Initial:
    """`given` cut to what `module` takes.

    Every tensor must be there with its shape, but for the classifier's (`classifier`: its names), which
    are drawn anew where they do not fit, such as for other classes, and for the shape of the very first
    weight, which depends on the images' channels and the stem.

    Raises OfframpError naming the first tensor that does not fit.
    """
    own = module.state_dict()
    first = next(iter(own))
    title = type(module).__name__
    chosen: dict[str, Tensor] = {}
    drawn = []
    for name, tensor in own.items():
        found = given.get(name)
        if found is not None and found.shape == tensor.shape:
            chosen[name] = found.to(tensor.dtype).clone()
        elif found is None and name.endswith(COUNTER):
            continue
        elif name in classifier or (name == first and found is not None):
            drawn.append(name)
        elif found is None:
            lacking = sum(n not in given and not n.endswith(COUNTER) for n in own)
            raise OfframpError(
                f"the weights '{source}' are of another network: they lack '{name}'"
                + (f" and {lacking - 1} more tensors" if lacking > 1 else "")
                + f" of {title}; give weights of the same architecture"
            )
        else:
            raise OfframpError(
                f"the weights '{source}' do not fit: '{name}' is {list(found.shape)} there and "
                f"{list(tensor.shape)} in {title}; give weights of the same architecture and options"
            )
    left = tuple(name for name in given if name not in own)
    return Initial(chosen, tuple(drawn), left)


def starting(make: Make, tensors: Mapping[str, Tensor]) -> nn.Module:
    """`make()`'s module with `tensors` in it; the rest as drawn."""
    module = make()
    module.load_state_dict(dict(tensors), strict=False)
    return module


def _some(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise OfframpError(
            f"{path} holds more than tensors, and running code from a file is refused; "
            "save its state_dict, best as .safetensors"
        ) from error
    except Exception as error:  # the unpickler raises whatever it likes on damaged bytes
        reason = " ".join(str(error).split())[:150]
        raise OfframpError(f"{path} cannot be read as weights ({reason}); give another file") from error


def _state(value: Any, path: Path) -> dict[str, Tensor]:
    """Names and tensors, out of a checkpoint that may hold more."""
    for name in NESTED:
        if isinstance(value, Mapping) and isinstance(value.get(name), Mapping):
            value = value[name]
    if not isinstance(value, Mapping) or not value:
        raise OfframpError(
            f"{path} holds a {type(value).__name__}; give a state_dict: names and tensors"
        )
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise OfframpError(f"{path} holds '{name}', which is no tensor; give a plain state_dict")
    names = [str(name) for name in value]
    prefix = "module." if all(name.startswith("module.") for name in names) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in value.items()}


def _upstream(backbone: str) -> str:
    """What publishes the weights, as `torchvision/resnet18`; empty where nobody does."""
    return (BACKBONES[backbone].upstream if backbone in BACKBONES else backbone) or ""


def has_public(backbone: str) -> bool:
    """Whether torchvision or timm publishes weights of the backbone."""
    return _upstream(backbone).startswith(("torchvision/", "timm/"))


def _public(backbone: str) -> dict[str, Tensor]:
    """The checkpoint that torchvision or timm publishes, through their own caches."""
    upstream = _upstream(backbone)
    library, _, name = upstream.partition("/")
    if not has_public(backbone):
        raise OfframpError(
            f"there are no public weights of '{backbone}'; give a file: weights: path/to/file.pth"
        )
    try:
        if library == "torchvision":
            from torchvision import models  # late: it takes seconds to import

            weights = models.get_model_weights(name).DEFAULT
            state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
            return state
        import timm  # late: it takes seconds to import

        file = at_hand(IMAGENET, backbone)  # given, so that the hub is not asked
        given = None if file is None else {"file": str(file)}
        net = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=given)
        return dict(net.state_dict())
    except Exception as error:  # a dozen kinds, of four libraries: no network, no such file, …
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise OfframpError(
            f"the weights of {upstream} cannot be had ({reason}); connect, or give a file: "
            "weights: path/to/file.pth"
        ) from error
