"""From a function to a command: its signature gives the options, its docstring the help, and its answer
what is printed."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import sys
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ForwardRef, Literal, Union, get_args, get_origin, is_typeddict

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from offramp.api.answer import Ongoing, WithExitCode, WithFailure, WithWarnings
from offramp.api.options import CommandOption
from offramp.api.progress.log import (
    Format,
    Log,
    LogOptions,
    moving,
    opened,
    reading_shown,
    seldom_said,
)
from offramp.errors import OfframpError
from offramp.hashing import finite
from offramp.process import exit_code
from offramp.terminal import show

SECTION = re.compile(
    r"^(Args|Attributes|Returns|Raises|Yields|Example|Examples|References|On the command line):$",
    re.MULTILINE,
)
EXAMPLES = "On the command line"
# In messages: a whole call of a job; and `name`, `name=value`, or `function(..., name=value)`.
CALL = re.compile(r"`offramp\.(\w+)\((.*)\)`")
PARAMETER = re.compile(r"`(?:(\w+)\(\.\.\., (?=[^`]*\)`))?(\w+)(?:='?([^`']+?)'?)?\)?`")


class NamedPath(click.Path):
    """A path that is not empty, as an unset variable of the shell is: that would be the folder here."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value).strip():
            self.fail("it is empty, as an unset variable is; name a place", param, ctx)
        return super().convert(value, param, ctx)


QUIET = click.Option(["--quiet", "-q"], is_flag=True, help="Show no progress, only the results.")
LOG = (
    QUIET,
    click.Option(["--verbose", "-v"], is_flag=True, help="In logs, a line for every epoch."),
    click.Option(
        ["--log-file"],
        type=NamedPath(path_type=Path),
        metavar="FILE",
        help="Append the log to this file too.",
    ),
    click.Option(
        ["--log-format"],
        type=click.Choice(list(Format)),
        metavar="text|json",
        help="Format of the log. json: one object a line, on a terminal too.",
    ),
)
LOG_NAMES = ("quiet", "verbose", "log_file", "log_format")


@dataclass(frozen=True)
class Job:
    """What a command does, by the options that are given."""

    function: Callable[..., Any]  # what it calls
    # what it calls instead, by the option that asks for it: an option that this function alone takes, or
    # else a flag, as `--watch` is
    modes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def items(self) -> Iterable[tuple[str, Callable[..., Any]]]:
        """All that it may call, by the mode; the usual one under ""."""
        return {"": self.function, **self.modes}.items()


@dataclass(frozen=True)
class JobParameter:
    """A parameter of a function, as a command takes it."""

    name: str  # in Python
    base: Any  # its type, without None; of a list, that of its entries
    multiple: bool  # whether it is a list
    option: CommandOption  # what its type says of the command line
    help: str  # from the docstring
    default: Any  # `inspect.Parameter.empty` for none
    by_place: bool  # whether the command takes it by position

    @property
    def flag(self) -> str:
        """What messages call it."""
        if self.by_place:
            return self.option.metavar or self.name.upper()
        return self.option.names[0] if self.option.names else f"--{self.name.replace('_', '-')}"

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty or self.option.needed


def sections(docstring: str) -> dict[str, str]:
    """The parts of a docstring in Google's style by their headings; what is before them under ""."""
    pieces = SECTION.split(inspect.cleandoc(docstring))
    return {"": pieces[0].strip(), **dict(zip(pieces[1::2], pieces[2::2], strict=True))}


def entries(section: str) -> dict[str, str]:
    """What a section such as `Args` says of each name.

    Example:
        >>> entries("    a: The first,\\n        of two.\\n    b: The other.")
        {'a': 'The first, of two.', 'b': 'The other.'}
    """
    about: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(f"\n{section}").splitlines():
        head, colon, text = line.partition(": ")
        if line and not line.startswith(" ") and colon:
            names = head.split(", ")
            about |= dict.fromkeys(names, text)
        elif line.strip():
            about |= {name: f"{about[name]} {line.strip()}" for name in names}
    return about


@cache
def parameters(function: Callable[..., Any]) -> dict[str, JobParameter]:
    """What a command takes of its function, by name, its groups of settings flattened."""
    about = entries(sections(function.__doc__ or "").get("Args", ""))
    takes: dict[str, JobParameter] = {}
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            (group,) = get_args(parameter.annotation)
            assert is_typeddict(group)
            for name, hint in group.__annotations__.items():
                takes[name] = _parameter(name, hint, _attributes(hint).get(name, ""), None, False)
        else:
            takes[parameter.name] = _parameter(
                parameter.name,
                parameter.annotation,
                about.get(parameter.name, ""),
                parameter.default,
                parameter.kind is parameter.POSITIONAL_OR_KEYWORD,
            )
    return {name: parameter for name, parameter in takes.items() if not parameter.option.python}


def _attributes(hint: Any) -> dict[str, str]:
    """What the docstrings of groups of settings say, in the module that this setting is from."""
    module = sys.modules[str(hint.__forward_module__)] if isinstance(hint, ForwardRef) else None
    about: dict[str, str] = {}
    for group in vars(module).values() if module else ():
        if is_typeddict(group):
            about |= entries(sections(group.__doc__ or "").get("Attributes", ""))
    return about


def _parameter(name: str, hint: Any, about: str, default: Any, by_place: bool) -> JobParameter:
    option = CommandOption()
    multiple = False
    if isinstance(hint, ForwardRef):  # of a group of settings; what it names in turn stays a name
        hint = eval(hint.__forward_arg__, vars(sys.modules[str(hint.__forward_module__)]))
    while True:
        if hasattr(hint, "__metadata__"):
            for note in hint.__metadata__:
                match note:
                    case CommandOption():
                        option = note
                    case str():
                        option = CommandOption(note)
            hint = hint.__origin__
        elif get_origin(hint) in (Union, types.UnionType):
            others = [each for each in get_args(hint) if each is not type(None)]
            if len(others) > 1:
                multiple |= any(issubclass(_origin(each), Sequence) for each in others)
                break
            hint = others[0]
        elif get_origin(hint) is not None and issubclass(_origin(hint), Sequence):
            hint, multiple = get_args(hint)[0], True
        else:
            break
    text = option.help or about
    return JobParameter(name, hint, multiple, option, text, default, by_place and not option.by_name)


def _shows(function: Callable[..., Any]) -> str | None:
    """What a command shows while the function works."""
    watch = parameters(function).get("watch")
    return None if watch is None else watch.option.shows


def _origin(hint: Any) -> type:
    origin = get_origin(hint)
    return origin if isinstance(origin, type) else object


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _click_type(parameter: JobParameter) -> click.ParamType[Any] | None:
    """None for a flag."""
    base, least, most = parameter.base, parameter.option.least, parameter.option.most
    if base is bool or bool in get_args(base):
        return None
    if parameter.option.parse is not None:
        return click.STRING
    kind: click.ParamType[Any]
    if base is int:
        kind = click.INT if least is None else click.IntRange(_whole(least), _whole(most))
        kind.name = "whole number"  # what an error calls it
        return kind
    if base is float:
        kind = click.FLOAT if least is None else click.FloatRange(least, most)
        kind.name = "number"
        return kind
    if get_origin(base) is Literal:
        return click.Choice([str(choice) for choice in get_args(base)])
    if base is Path:
        return NamedPath(path_type=Path)
    return click.STRING


class JobOption(click.Option):
    """An option. mode: the option that it goes with, or several; empty for any."""

    mode = ""


def _click_parameters(parameter: JobParameter) -> list[click.Parameter]:
    option, kind = parameter.option, _click_type(parameter)
    common: dict[str, Any] = {}
    if kind is click.STRING:
        common["shell_complete"] = lambda _, __, text: (
            [CompletionItem(name) for name in option.complete() if name.startswith(text)]
            or [CompletionItem(text, type="file")]
        )
    if parameter.by_place:
        metavar = option.metavar or parameter.name.upper()
        argument = click.Argument(
            [f"{parameter.name}_argument"],
            help=parameter.help + _default(parameter),
            metavar=(metavar if parameter.required else f"[{metavar}]") + "..." * parameter.multiple,
            type=kind,
            required=parameter.required and not option.names,
            nargs=-1 if parameter.multiple else 1,
            **common,
        )
        if not option.names:
            return [argument]
        common["help"] = f"The {option.names[0][2:]}, if no argument names it."
        return [argument, JobOption([*option.names, parameter.name], metavar=option.metavar, **common)]
    names = list(option.names) or [parameter.flag]
    if kind is None:
        if parameter.default is True and not option.names:
            names = [f"{parameter.flag}/--no-{parameter.flag[2:]}"]
        elif names[0].startswith("/"):  # a flag that turns off what is on
            names, common["flag_value"] = [names[0][1:]], False
        common |= {"is_flag": True, "default": None}
    return [
        JobOption(
            [*names, parameter.name],
            help=parameter.help + _default(parameter),
            metavar=None if kind is None else option.metavar or _metavar(parameter),
            type=kind,
            multiple=parameter.multiple,
            required=parameter.required,
            **common,
        )
    ]


def _metavar(parameter: JobParameter) -> str:
    base = parameter.base
    if get_origin(base) is Literal:
        return "|".join(map(str, get_args(base)))
    return "N" if base in (int, float) else "FILE" if base is Path else "TEXT"


def _default(parameter: JobParameter) -> str:
    """As the help says it, unless the help's own words do."""
    default = parameter.default
    text = parameter.option.default
    if not text and default is not inspect.Parameter.empty and default not in (None, False, True, ()):
        text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"  [default: {text}]" if text and "By default" not in parameter.help else ""


class JobCommand(click.Command):
    """A command whose parameters are read from its functions when they are needed."""

    def __init__(self, name: str, job: Job) -> None:
        about = {mode: sections(function.__doc__ or "") for mode, function in job.items()}
        first, _, rest = about[""][""].partition("\n\n")
        prose = [first, rest]
        for mode, parts in about.items():
            more = parts[""].partition("\n\n")[2]
            prose += [f"With --{mode}: {more[:1].lower()}{more[1:]}"] if mode and more else []
        lines = [inspect.cleandoc(f"\n{parts.get(EXAMPLES, '')}") for parts in about.values()]
        examples = "\n".join(filter(None, lines)).replace("\n", "\n  ")
        prose += [f"\b\nExamples:\n  {examples}"] if examples else []
        super().__init__(
            name,
            help="\n\n".join(filter(None, prose)).replace("::\n\n", ":\n\n\b\n"),  # lines as they are
            short_help=" ".join(first.split()),
        )
        self.job = job

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not self.params:
            self.params = self._parameters()
        return super().get_params(ctx)

    def _parameters(self) -> list[click.Parameter]:
        job = self.job
        takes: dict[str, JobParameter] = {}
        options: list[click.Parameter] = []
        for mode, function in job.items():
            if mode and mode not in parameters(function):
                first = " ".join(sections(function.__doc__ or "")[""].partition("\n\n")[0].split())
                options.append(click.Option([f"--{mode}", _variable(mode)], is_flag=True, help=first))
            for name, parameter in parameters(function).items():
                if name in takes:
                    for option in options:
                        if isinstance(option, JobOption) and option.name == name and option.mode:
                            option.mode += f" or --{mode}"
                    continue
                if name == "watch" or (mode and parameter.by_place):
                    continue
                takes[name] = parameter
                if job.modes and parameter.required and not self._in_all_modes(parameter):
                    parameter = replace(parameter, default=None)
                for option in _click_parameters(parameter):
                    if isinstance(option, JobOption) and mode:
                        option.mode = f"--{mode}"
                    options.append(option)
        options.append(
            click.Option(["--json", "as_json"], is_flag=True, help="Answer in JSON, for programs.")
        )
        return [*options, *log_options([_shows(function) for _, function in job.items()])]

    def _in_all_modes(self, parameter: JobParameter) -> bool:
        """Whether every mode needs a parameter: by name, or by its place."""
        usual = parameters(self.job.function)
        if parameter.name not in usual:
            return False
        names = [name for name, each in usual.items() if each.by_place]
        for function in self.job.modes.values():
            takes = parameters(function)
            own = [each for each in takes.values() if each.by_place]
            at = names.index(parameter.name) if parameter.by_place else len(own)
            same = own[at] if at < len(own) else takes.get(parameter.name)
            if same is None or not same.required:
                return False
        return True

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """With parameters as options: `dry_run` is --dry-run."""
        for part in (self, *self.get_params(ctx)):
            if isinstance(part, JobCommand | click.Option | click.Argument) and part.help:
                part.help = self._in_flags(part.help)
        super().format_help(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                mode = parameter.mode if isinstance(parameter, JobOption) else ""
                groups.setdefault(mode, []).append(record)
        for mode, records in groups.items():
            with formatter.section(f"Options with {mode}" if mode else "Options"):
                formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> None:
        named = {
            name: setting
            for name, setting in ctx.params.items()
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        }
        log = LogOptions(**{name: named.pop(name) for name in LOG_NAMES if name in named})
        as_json = named.pop("as_json", False)
        function = self._function(named)
        request = self._request(ctx, function, named)
        try:
            with watching(_shows(function), log, as_json) as watch:
                if watch is not None:
                    request["watch"] = watch
                code = print_answer(function(**request), as_json)
        except OfframpError as error:  # Python's names of parameters are this command's options
            error.args = tuple(self._in_flags(str(part), function) for part in error.args)
            raise
        except KeyboardInterrupt as error:
            code = exit_code(error)
        ctx.exit(code)

    def _in_flags(self, text: str, chosen: Callable[..., Any] | None = None) -> str:
        """A text with the parameters of a job as options, first those of the chosen function.

        `score` is --score, `score='fixed'` is --score fixed, and `calibrate(..., score='fixed')` what
        was typed, with that.
        """
        flags: dict[str, str] = {}
        for function in (*(function for _, function in self.job.items()), chosen or self.job.function):
            flags |= {name: parameter.flag for name, parameter in parameters(function).items()}

        def words(match: re.Match[str]) -> str:
            call, name, value = match.groups()
            if name not in flags or value is None:
                return flags.get(name, match[0])
            setting = [] if value == "True" else [value]
            return shlex.join([*(_typed(flags[name]) if call else []), flags[name], *setting])

        return CALL.sub(_in_shell, PARAMETER.sub(words, text))

    def _function(self, named: dict[str, Any]) -> Callable[..., Any]:
        """The function that the options ask for; a flag that only chooses is takes out of `named`."""
        modes = self.job.modes.items()
        chosen = [
            mode
            for mode, function in modes
            if (mode in named and mode in parameters(function)) or named.pop(_variable(mode), False)
        ]
        if len(chosen) > 1:
            names = " and ".join(f"--{mode}" for mode in chosen)
            raise OfframpError(f"{names} are two things to do; name one")
        return self.job.modes[chosen[0]] if chosen else self.job.function

    def _request(
        self, ctx: click.Context, function: Callable[..., Any], named: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The arguments of the function. Raises OfframpError for options that it does not take."""
        takes = parameters(function)
        places = [
            name for name, parameter in parameters(self.job.function).items() if parameter.by_place
        ]
        own = [name for name, parameter in takes.items() if parameter.by_place]
        request: dict[str, Any] = {}
        arguments_first = sorted(named.items(), key=lambda pair: not pair[0].endswith("_argument"))
        for name, setting in arguments_first:
            bare = name.removesuffix("_argument")
            if bare in places and places.index(bare) < len(own) and bare not in takes:
                bare = own[places.index(bare)]
            if bare not in takes:
                raise OfframpError(self._misplaced(bare, function))
            parsed = _parsed(takes[bare], setting)
            if bare in request:
                _check_same(takes[bare].option.names[0], request[bare], parsed)
            else:
                request[bare] = parsed
        for name, parameter in takes.items():
            if parameter.required and name not in request:
                raise click.MissingParameter(ctx=ctx, param=_click_parameters(parameter)[0])
        return request

    def _misplaced(self, name: str, chosen: Callable[..., Any]) -> str:
        for mode, function in self.job.modes.items():
            if function is chosen:
                every = {n: each for _, f in self.job.items() for n, each in parameters(f).items()}
                return f"{every[name].flag} does not go with --{mode}; leave one out"
        modes = [mode for mode, function in self.job.modes.items() if name in parameters(function)]
        if modes:
            flag = parameters(self.job.modes[modes[0]])[name].flag
            some = " or ".join(f"--{mode}" for mode in modes)
            return f"{flag} goes with {some}; add it"
        raise KeyError(name)  # every option is of one of the functions


def _in_shell(call: re.Match[str]) -> str:
    """A call of a job as a shell takes it."""
    (code,) = ast.parse(call[0].strip("`")).body
    assert isinstance(code, ast.Expr) and isinstance(code.value, ast.Call)
    words = ["offramp", call[1], *map(ast.literal_eval, code.value.args)]
    for option in code.value.keywords:
        setting = ast.literal_eval(option.value)
        words += [f"--{str(option.arg).replace('_', '-')}", *([] if setting is True else [setting])]
    return shlex.join(words)


def _typed(without: str) -> list[str]:
    """The command as it was typed, but for an option and its value."""
    words = [word for word in sys.argv[1:] if not word.startswith(f"{without}=")]
    at = words.index(without) if without in words else len(words)
    return ["offramp", *words[:at], *words[at + 2 :]]


def _variable(mode: str) -> str:
    return f"mode_{mode.replace('-', '_')}"


def _parsed(parameter: JobParameter, setting: Any) -> Any:
    parse = parameter.option.parse
    if any(not str(text).strip() for text in (setting if isinstance(setting, tuple) else (setting,))):
        raise OfframpError(f"{parameter.flag} is empty, as an unset variable is; give it a value")
    if isinstance(setting, tuple) and not parameter.multiple:
        if len(setting) > 1:
            raise OfframpError(f"this takes one {parameter.name}; got {', '.join(setting)}")
        (setting,) = setting
    if parameter.multiple and isinstance(setting, str):  # of --store: one store, not its letters
        setting = (setting,)
    if parse is None and parameter.base is Path and not parameter.multiple:
        return Path(setting)  # a text in a place where another mode of the command takes a name
    if parse is None:
        return list(setting) if parameter.multiple else setting
    if parameter.multiple:
        return [parse(text, parameter.flag) for text in setting]
    return parse(setting, parameter.flag)


def _check_same(name: str, places: Any, option: Any) -> None:
    """Raises OfframpError if the arguments name one thing and their option, `name`, another."""
    if isinstance(places, list):
        if others := [str(store) for store in option if store not in places]:
            raise OfframpError(
                f"{name} {', '.join(others)} is not among the stores before it; name all as arguments"
            )
    elif places != option:
        raise OfframpError(f"{places} and {name} {option} are two; leave one out")


def log_options(works: Collection[str | None]) -> Sequence[click.Option]:
    """The options of a command that say what it shows meanwhile.

    works: what each of its functions shows, as of `CommandOption.shows`.
    """
    return LOG if "training" in works else (QUIET,) if any(works) else ()


@contextmanager
def watching(shows: str | None, options: LogOptions, as_json: bool) -> Iterator[Any]:
    """What a function takes as `watch`, shown while the block runs; None where it takes nothing.

    shows: as of `CommandOption`.
    """
    match shows:
        case "training":
            from offramp.api.progress.display import Display

            with opened(options, as_json) as log:
                yield Display(log, command=True, quiet=options.quiet, as_json=as_json)
        case "steps":
            silent = options.quiet or as_json
            with reading_shown(Log(progress=not silent, timed=False)):
                yield None if silent else lambda step: click.echo(f"{step} …", err=True)
        case "fast steps":
            log = Log(progress=not options.quiet)
            with moving("reading", log) as status:
                yield status.update if log.moves or as_json else seldom_said(log)
        case _:
            with reading_shown():
                yield None


def print_answer(answer: Any, as_json: bool) -> int:
    """Print an answer; the exit code."""

    def show_now() -> None:
        if as_json:
            click.echo(json.dumps(finite(answer.as_json()), indent=2, allow_nan=False))
            return
        for line in answer.warnings() if isinstance(answer, WithWarnings) else ():
            click.echo(line, err=True)
        show(answer.document())

    if isinstance(answer, Ongoing):
        return answer.run(as_json, show_now)
    show_now()
    if isinstance(answer, WithFailure) and answer.failure is not None:
        raise answer.failure
    return answer.exit_code if isinstance(answer, WithExitCode) else 0


@dataclass(frozen=True)
class JobGroup:
    """Commands of one thing. help: a line.  jobs: by the name of the command."""

    help: str
    jobs: Mapping[str, Job]

    def command(self, name: str) -> click.Group:
        commands = [JobCommand(each, job) for each, job in self.jobs.items()]
        return click.Group(name, commands, help=self.help, no_args_is_help=True)


class SectionedGroup(click.Group):
    """Commands under headings. sections: names of commands by heading."""

    def __init__(self, sections: Mapping[str, Sequence[click.Command]], **more: Any) -> None:
        commands = [command for group in sections.values() for command in group]
        super().__init__(commands=commands, **more)
        self.sections = sections

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in self.commands)
        for title, commands in self.sections.items():
            with formatter.section(title):
                rows = [(str(each.name).ljust(width), each.get_short_help_str(200)) for each in commands]
                formatter.write_dl(rows)
