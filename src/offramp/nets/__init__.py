"""Early-exit networks: backbones, where to cut them, heads, and the network they make."""

from __future__ import annotations

from offramp.nets.backbones import BACKBONES
from offramp.nets.builder import attach, build, list_places
from offramp.nets.clock import Clock
from offramp.nets.cut.places import Place, places
from offramp.nets.heads import HeadSpec
from offramp.nets.network import ExitNetwork
from offramp.nets.origin import NetSpec

__all__ = [
    "BACKBONES",
    "Clock",
    "ExitNetwork",
    "HeadSpec",
    "NetSpec",
    "Place",
    "attach",
    "build",
    "list_places",
    "places",
]
