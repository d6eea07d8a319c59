"""The page: one HTML file that needs nothing else and no network."""

from __future__ import annotations

from offramp.report.page.html import page

__all__ = ["page"]
