"""Lay out what the site is made of: python docs/site/assemble.py FOLDER (make docs)

Pages lie as they do in the repository, so that their links hold on a code host and here. Written beside
them: a page for each strategy, with a picture of its phases, all commands, and the Python reference. A
link to what is not there ends it.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat

import offramp
from offramp.cli.app import app
from offramp.report.render.program import picture
from offramp.strategies import GROUPS, STRATEGIES, Strategy, explained

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
EXITS = 4  # of the pictures, the final one included
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/results.md")
TITLES = {"benchmarks/results.md": "Benchmarks", "README.md": "Start"}  # that pages have here alone
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
INSTEAD = {"src/offramp/strategies": "strategies/index.md", "LICENSE": None}
WORDS = {  # what has no docstring of its own
    "BEFORE": "As a phase's ``teacher``: the weights that the network had before training.",
    "LIVE": "As a phase's ``teacher``: the network that trains, as it is in the same step.",
    "Event": "What ``watch`` is given; ``print`` shows it as a line.",
    "Goal": "What ``build`` may choose a strategy for: ``accuracy``, ``latency`` and so on.",
    "Strategy": "A function of the number of exits that returns phases.",
}
SHOWN = {"ExitNetwork": " head_keys, head_parameters, macs"}  # of a class that is large inside
REFERENCE = {
    "From a network or a study to results": [
        *("attach", "multi_exit", "program", "fit", "adopt", "run", "build", "load", "predictor"),
    ],
    "What comes back": [
        *("Fitted", "Results", "Chart", "Built", "Exported", "ExitNetwork", "LoopPhase", "MultiExit"),
        *("Policy", "Calibration", "CalibrationReport", "BenchmarkReport", "Predictor", "Prediction"),
        "JobAnswer",
    ],
    "Before and while training": [
        *("forecast", "forecast_build", "search", "recipes", "list_strategies", "taps"),
        *("describe_data", "check_data", "split_data"),
    ],
    "Results of a store": [
        *("status", "trials", "watch", "show", "write_report", "figures", "tables", "numbers"),
        *("compare", "interaction", "stats", "claims", "recommend"),
    ],
    "From a trial to its use": [
        *("calibrate", "export", "publish", "predict", "benchmark", "serve_bundle"),
    ],
    "Stores, trackers, this machine": [
        *("copy_store", "index_store", "pack", "remove_unneeded", "track_store", "doctor"),
    ],
    "How to train": ["Recipe", "Augment"],
    "Data by name": ["DataSpec", "save_splits"],
    "A strategy of your own": [
        *("Phase", "CE", "KD", "MSE", "Features", "Gates", "Init"),
        *("Survivors", "Unsolved", "Gated", "BEFORE", "LIVE", "early_exit_loss"),
        *("backbone", "head", "heads", "segment", "segments"),
    ],
    "Types to name": ["Costs", "Event", "Goal", "Limits", "Strategy"],
    "Mistakes": ["OfframpError", "OfframpWarning"],
}


def main(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    for page in pages():
        place = target / page
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(titled(page, relinked(page, target)), encoding="utf-8")
    for name in ("conf.py", "docstrings.py", "index.md"):
        shutil.copy(HERE / name, target / name)
    (target / "_static").mkdir()
    shutil.copy(HERE / "site.css", target / "_static" / "site.css")
    (target / "_static" / "notebooks").mkdir()
    for page in sorted((target / "docs" / "notebooks").glob("*.md")):
        file = target / "_static" / "notebooks" / f"{page.stem}.ipynb"
        text = page.read_text(encoding="utf-8")
        nbformat.write(notebook(text), file)
        line = f'<a href="../../_static/notebooks/{file.name}" download>This page as a notebook</a>\n'
        page.write_text(
            re.sub(r"(^# .*\n)", rf"\1\n{line}", text, count=1, flags=re.M), encoding="utf-8"
        )
    for name, text in {**strategies(), **reference()}.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text, encoding="utf-8")


def pages() -> list[Path]:
    """Every page that is written by hand, from the repository's root."""
    docs = (path.relative_to(ROOT) for path in sorted((ROOT / "docs").rglob("*.md")))
    own = HERE.relative_to(ROOT)
    found = [path for path in docs if own not in path.parents and not _packed(path)]
    return [*map(Path, TOP), *found]


def titled(page: Path, text: str) -> str:
    """A page under its title of TITLES, or else its own."""
    title = TITLES.get(page.as_posix())
    own = re.compile(r"\A# .*\n+")
    return text if title is None else f"# {title}\n\n{own.sub('', text)}"


def notebook(text: str) -> nbformat.NotebookNode:
    """The cells of a page of MyST-NB, its words between them; none has been run."""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    parts = re.split(r"^```\{code-cell\} python\n(.*?)^```$", body, flags=re.DOTALL | re.MULTILINE)
    kinds = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [
        kinds[at % 2](re.sub(r"\A(:.*\n)+\n?", "", part).strip(), id=f"cell-{at}")
        for at, part in enumerate(parts)
        if part.strip()
    ]
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=about)


def _packed(page: Path) -> bool:
    """Whether it is of a pack of results, which explains itself."""
    return page.parts[:2] == ("docs", "results") and len(page.parts) > 3


def relinked(page: Path, target: Path) -> str:
    """A page's text, whose links lead to pages and files of the site; files come along. A folder's link
    becomes its words. Raises SystemExit for what is not there."""
    text, found, at = (ROOT / page).read_text(encoding="utf-8"), [], 0
    for fence in [*FENCE.finditer(text), None]:
        end = len(text) if fence is None else fence.start()
        found.append(LINK.sub(lambda link: _link(link, page, target), text[at:end]))
        if fence is not None:
            found.append(fence[0])
            at = fence.end()
    return "".join(found)


def _link(link: re.Match[str], page: Path, target: Path) -> str:
    image, words, where = link.groups()
    path, hash, part = where.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return link[0]
    place = (ROOT / page.parent / path).resolve()
    if not place.exists() or not place.is_relative_to(ROOT):
        sys.exit(f"{page}: the link to {where} leads nowhere; mend it")
    inside = place.relative_to(ROOT)
    if inside.as_posix() in INSTEAD:
        other = INSTEAD[inside.as_posix()]
        up = "../" * len(page.parent.parts)
        return words if other is None else f"[{words}]({up}{other})"
    if place.is_dir():
        return words
    if inside not in pages():
        (target / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place, target / inside)
    return f"{image}[{words}]({path}{hash}{part})"


def strategies() -> dict[str, str]:
    """Pages and pictures by name, an index first."""
    rows = []
    for title, group in GROUPS.items():
        rows.append(f"\n## {title[0].upper()}{title[1:]}\n")
        rows += [f"- [{name}]({name}.md): {_summary(found)}" for name, found in group.items()]
    listed = "\n".join(STRATEGIES)
    toc = f"```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    lead = (
        "A strategy is a sequence of phases. Each says what trains, on which loss; the rest is frozen. "
        "Phases that several strategies have in common are trained once."
    )
    made = {"strategies/index.md": f"# Strategies\n\n{lead}\n\n" + "\n".join(rows) + f"\n\n{toc}"}
    for name, found in STRATEGIES.items():
        drawn = picture(found(EXITS), EXITS, f"The phases of {name}, with {EXITS} exits")
        made[f"strategies/{name}.svg"] = drawn
        made[f"strategies/{name}.md"] = "\n".join(_page(name, found))
    return made


def _summary(strategy: object) -> str:
    doc = inspect.getdoc(strategy) or ""
    return " ".join(doc.partition("\n\n")[0].split())


def _page(name: str, strategy: Strategy) -> Iterator[str]:
    """From the docstring: its first paragraph, the algorithm box, its options."""
    doc, words = explained(strategy)
    first, box, *rest = doc.split("\n\n")
    yield f"# {name}\n"
    yield f"{first}\n"
    yield f"![What trains when, with {EXITS} exits]({name}.svg)\n"
    yield f"```text\n{box}\n```\n"
    options = [o for o in inspect.signature(strategy).parameters.values() if o.kind is o.KEYWORD_ONLY]
    if options:
        yield "## Options\n"
        yield "".join(f"- `{o.name}`, by default `{o.default}`: {words[o.name]}\n" for o in options)
    yield from (f"{paragraph}\n" for paragraph in rest)
    yield "## Try it\n"
    yield f"    offramp strategies {name}"
    yield f"    offramp run --strategy {name} --backbone digits-cnn --data digits\n"
    code = re.sub(r'"""[\s\S]*?"""', '"""…"""', inspect.getsource(strategy), count=1)
    yield f"## As a program\n\n```python\n{code}```\n"


def reference() -> dict[str, str]:
    """The Python reference, and every command's help."""
    named = [name for names in REFERENCE.values() for name in names]
    if sorted(named) != sorted(offramp.__all__):
        odd = sorted(set(named) ^ set(offramp.__all__))
        sys.exit(f"docs/site/assemble.py: REFERENCE and offramp.__all__ differ by {odd}; mend it")
    parts = ["# Python reference\n", "[Python](../docs/python.md) shows how they go together.\n"]
    for title, names in REFERENCE.items():
        parts.append(f"## {title}\n")
        directives = "\n\n".join(map(_directive, names))
        parts.append(f"```{{eval-rst}}\n.. currentmodule:: offramp\n\n{directives}\n```\n")
    return {"reference/python.md": "\n".join(parts), "reference/commands.md": commands()}


def _directive(name: str) -> str:
    found = getattr(offramp, name)
    if name in WORDS:
        value = f"\n   :value: {found!r}" if isinstance(found, str) else ""
        return f".. py:data:: {name}{value}\n\n   {WORDS[name]}"
    if inspect.isclass(found):
        return f".. autoclass:: {name}\n   :members:{SHOWN.get(name, '')}"
    return f".. autofunction:: {name}"


def commands() -> str:
    """What `--help` says of each command."""
    from click import Context

    parts = ["# Commands\n"]
    root = app
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        for full, one in (
            {f"{name} {sub}": c for sub, c in inner.items()}.items() if inner else [(name, command)]
        ):
            wide = {**root.context_settings, "max_content_width": 95, "terminal_width": 95}
            with Context(one, info_name=f"offramp {full}", **wide) as context:
                parts.append(f"## offramp {full}\n\n```text\n{one.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
