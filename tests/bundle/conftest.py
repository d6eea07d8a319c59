from __future__ import annotations

from remembered_graphs import remembered_graphs

__all__ = ["remembered_graphs"]
