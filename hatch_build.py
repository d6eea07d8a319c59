"""What is built knows its source: the commit, and, where the repository has an address, its links.

Hatchling calls both hooks. The address comes from OFFRAMP_REPOSITORY, or from GitHub's own variables in
a workflow; without one the page on PyPI has no links of ours, rather than wrong ones. The commit comes
from git, or from the file that an earlier build left (a wheel that is built from a source archive).
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

COMMIT = "COMMIT"  # in the source archive and in the package
RELATIVE_LINK = re.compile(r"(!?)\[([^]]*)\]\((?!https?:|#|mailto:)([^)\s]+)\)")


def repository() -> str:
    """The repository's address, without a slash at its end; empty where nothing says it."""
    github = "/".join(filter(None, map(os.environ.get, ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY"))))
    address = os.environ.get("OFFRAMP_REPOSITORY") or (github if github.count("/") >= 4 else "")
    return address.rstrip("/")


def commit(root: Path) -> str:
    """The revision that is built, empty where neither git nor an earlier build says it."""
    if (root / COMMIT).is_file():
        return (root / COMMIT).read_text("utf-8").strip()
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def absolute_links(text: str, address: str, revision: str) -> str:
    """Markdown whose links and pictures of this repository can be followed from another site.

    Args:
        text: Markdown with links relative to the repository's root.
        address: the repository's.
        revision: the tag or commit whose files are meant.
    """

    def absolute(link: re.Match[str]) -> str:
        mark, words, path = link.groups()
        return f"{mark}[{words}]({address}/{'raw' if mark else 'blob'}/{revision}/{path})"

    return RELATIVE_LINK.sub(absolute, text)


class Metadata(MetadataHookInterface):
    """README with absolute links, and the addresses that PyPI shows."""

    def update(self, metadata: dict) -> None:
        root = Path(self.root)
        text = (root / "README.md").read_text("utf-8")
        address = repository()
        if address:
            text = absolute_links(text, address, commit(root) or "HEAD")
            metadata["urls"] = {
                "Source": address,
                "Documentation": f"{address}/tree/HEAD/docs",
                "Issues": f"{address}/issues",
                "Changelog": f"{address}/blob/HEAD/CHANGELOG.md",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


class Commit(BuildHookInterface):
    """The commit's file, in the package and in the source archive."""

    def initialize(self, version: str, build_data: dict) -> None:
        revision = commit(Path(self.root))
        if not revision or version == "editable":  # an editable installation asks git
            return
        file = Path(self.directory) / COMMIT
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(revision + "\n", "utf-8")
        place = f"offramp/{COMMIT}" if self.target_name == "wheel" else COMMIT
        build_data["force_include"][str(file)] = place

    def finalize(self, *_: object) -> None:
        (Path(self.directory) / COMMIT).unlink(missing_ok=True)
