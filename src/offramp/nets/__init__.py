"""Early-exit networks: backbones, where to cut them, heads, and the network they make."""

from __future__ import annotations

from offramp.nets.backbones import BACKBONES
from offramp.nets.backbones.lookup import NetSpec
from offramp.nets.builder import attach, build, list_places
from offramp.nets.heads import HeadSpec
from offramp.nets.network import ExitNetwork

__all__ = ["BACKBONES", "ExitNetwork", "HeadSpec", "NetSpec", "attach", "build", "list_places"]
