"""From a function to a command: every option reaches the function, and its answer what is printed."""

import functools
import inspect
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from command import Answer, refusal, refused
from syrupy.assertion import SnapshotAssertion

import offramp.api
import offramp.study.build
from offramp.api.answer import answer
from offramp.api.deploy.build import AS_NAMED, BuildChoices, build
from offramp.api.deploy.calibrate import calibrate
from offramp.api.options import TrainingOptions
from offramp.cli.adapter import Job, JobCommand, JobGroup, entries, parameters, print_answer
from offramp.cli.app import JOBS
from offramp.errors import OfframpError
from offramp.policy.limits import Limits
from offramp.terminal import TextBlocks, TextTable
from wording import refused_as

SAMPLES = {  # of values that are parsed, by what the help calls them
    **{"SHARE": "0.3", "TIME": "7s", "MACS": "3M", "SIZE": "4GB", "SPEED": "2TMACs", "POINTS": "0.7"},
    **{
        "STORE": "s3://b/x",
        "FROM": "s3://b/x",
        "TO": "s3://b/y",
        "N": "3",
        "PLACE": "ray",
        "goal": "latency",
    },
}


@answer
class Echo:
    """An answer with nothing in it."""

    def as_json(self) -> dict[str, Any]:
        return {}

    def document(self) -> TextBlocks:
        return []


def jobs() -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Every command, its modes, and the function of each."""
    for section in JOBS.values():
        for name, job in section.items():
            inner = {name: job} if isinstance(job, Job) else {}
            if isinstance(job, JobGroup):
                inner = {f"{name} {each}": part for each, part in job.jobs.items()}
            for each, part in inner.items():
                yield from ((each, mode, function) for mode, function in part.items())


def called(function: Callable[..., Any], words: list[str]) -> dict[str, Any]:
    """What a function is called with."""
    requests: list[dict[str, Any]] = []

    @functools.wraps(function)
    def recorder(**request: Any) -> Echo:
        requests.append(request)
        return Echo()

    JobCommand("job", Job(recorder)).main(words, standalone_mode=False)
    (request,) = requests
    request.pop("watch", None)
    return request


def words_for(option: click.Parameter) -> list[str]:
    """A value of an option that is no default."""
    name = [] if isinstance(option, click.Argument) else [option.opts[0]]
    if isinstance(option, click.Option) and option.is_flag:
        return [(option.secondary_opts or option.opts)[0]]
    metavar = (option.metavar or "").strip("[].")
    match option.type:
        case click.Choice(choices=choices):
            return [*name, choices[-1]]
        case click.IntRange(min=least):
            return [*name, str(int(least or 0) + 3)]
        case click.FloatRange() | click.types.FloatParamType() | click.types.IntParamType():
            return [*name, "3"]
    return [*name, SAMPLES.get(str(option.name), SAMPLES.get(metavar, "some.csv"))]


@pytest.mark.parametrize(
    ("function"), [pytest.param(f, id=f"{name} {mode}".strip()) for name, mode, f in jobs()]
)
def test_each_option_changes_the_request_that_arrives(function: Callable[..., Any]) -> None:
    command = JobCommand("job", Job(function))
    options = command.get_params(click.Context(command))
    required = {f"{name}_argument" for name, each in parameters(function).items() if each.required}
    first = [option for option in options if option.required or option.name in required]
    needed = [word for option in first for word in words_for(option)]
    usual = called(function, needed)
    unread = {"as_json", "_click_default_help", "quiet", "verbose", "log_file", "log_format"}
    for option in options:
        if option in first or option.name in unread:
            continue
        changed = called(function, [*needed, *words_for(option)])
        assert set(changed) == {*usual, str(option.name).removesuffix("_argument")}, option.name
    names = {name for name in parameters(function) if name != "watch"}
    assert names == {str(o.name).removesuffix("_argument") for o in options} - unread


READ = re.compile(r'\b(?:training|choices|options)(?:\.get\(|\[)"(\w+)"')


@pytest.mark.parametrize(
    ("group", "folder", "as_named"),
    [(TrainingOptions, "train", set()), (BuildChoices, "deploy", AS_NAMED)],
)
def test_each_setting_of_a_group_is_read(group: type, folder: str, as_named: set[str]) -> None:
    """Linters see no name of a group that nobody reads. That its name stands somewhere is not enough."""
    files = Path(offramp.api.__path__[0], folder).glob("*.py")
    read = {name for path in files for name in READ.findall(path.read_text())}
    assert set(group.__annotations__) - set(Limits.__annotations__) <= read | as_named


def test_what_build_hands_on_as_it_is_named_is_read_there() -> None:
    source = inspect.getsource(offramp.study.build)
    assert {name for name in AS_NAMED if f"wish.{name}" not in source} == set()


@pytest.mark.parametrize(
    ("function", "group"), [(calibrate, Limits), (build, Limits), (build, BuildChoices)]
)
def test_each_setting_of_a_group_is_an_option(function: Callable[..., Any], group: type) -> None:
    command = JobCommand("job", Job(function))
    options = {option.name for option in command.get_params(click.Context(command))}
    assert set(group.__annotations__) <= options


def test_every_parameter_is_in_the_docstring() -> None:
    lacking = [
        (name, parameter.name)
        for name, _, function in jobs()
        for parameter in parameters(function).values()
        if not parameter.help and parameter.name != "watch"
    ]
    assert lacking == []


def test_entries_of_a_docstring() -> None:
    """
    a, b: One: two names.
    c: Another
        that follows.
    """
    text = inspect.getdoc(test_entries_of_a_docstring) or ""
    both = "One: two names."
    assert entries(text) == {"a": both, "b": both, "c": "Another that follows."}


@answer
class Numbers:
    """Numbers that JSON lacks."""

    def as_json(self) -> dict[str, Any]:
        return {"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf, "d": "nan"}}

    def document(self) -> TextBlocks:
        return [
            "<b>",
            "/long" * 30,
            TextTable(["name"], ["value"], [("a", "1"), ("b & c", "2")], "Two", "A note."),
        ]


def test_an_answer_is_shown_alike_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_answer(Numbers(), as_json=True) == 0
    record = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert record == {"a": [None, [None, 1.5]], "b": {"c": None, "d": "nan"}}
    assert print_answer(Numbers(), as_json=False) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert printed == repr(Numbers()).splitlines() and {"Two", "A note.", "/long" * 30} <= {*printed}
    page = Numbers()._repr_html_()  # type: ignore[attr-defined]
    assert "&lt;b&gt;" in page and "b &amp; c" in page and page.count("<tr>") == 3


def test_an_error_of_a_job_ends_the_command() -> None:
    @functools.wraps(parameters)
    def fails(function: str) -> None:
        raise OfframpError(function)

    fails.__annotations__ = {"function": str}
    fails.__dict__.pop("__wrapped__")
    with pytest.raises(OfframpError, match="x"):
        JobCommand("job", Job(fails)).main(["x"], standalone_mode=False)


def test_an_error_names_options_on_the_command_line_and_parameters_in_python(
    cli: Callable[..., Answer], snapshot: SnapshotAssertion
) -> None:
    with pytest.raises(OfframpError, match="`input` is 'x'; write"):
        offramp.taps("resnet18", input="x")
    refused(cli("taps", "resnet18", "--input", "x"), "--input is 'x'; write")
    with refused_as(snapshot(name="Python")):
        offramp.run("study.yaml", max_seeds=3)
    assert refusal(cli("run", "study.yaml", "--max-seeds", "3")) == snapshot(name="shell")


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ("`score` and `other`", "--score and `other`"),
        ("`anyway=True` and `other=1`", "--anyway and `other=1`"),
        ("`score='fixed'`", "--score fixed"),
        ("`f(..., anyway=True)`", "offramp job a --score 'b c' --risk=0.1 --anyway"),
        ("`f(..., score='fixed')`", "offramp job a --risk=0.1 --score fixed"),
        ("`f(..., risk=0.2)`", "offramp job a --score 'b c' --risk 0.2"),
    ],
)
def test_a_call_in_an_error_is_what_was_typed_with_that(
    python: str, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(name: str, *, score: str = "", risk: str = "", anyway: bool = False) -> None:
        raise OfframpError(python if not anyway else f"{name} {score} {risk}")

    typed = ["job", "a", "--score", "b c", "--risk=0.1"]
    monkeypatch.setattr("sys.argv", ["offramp", *typed])
    with pytest.raises(OfframpError) as caught:
        JobCommand("job", Job(job)).main(typed[1:], standalone_mode=False)
    assert str(caught.value) == shell
