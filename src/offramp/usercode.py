"""A user's own code by name: `path/to/file.py:function`, with the modules beside it that it imports."""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from offramp.errors import OfframpError, UntrustedCode, in_line, nearest
from offramp.files import DOCUMENT, read_regular
from offramp.hashing import digest


@dataclass(frozen=True)
class RecordedCode:
    """Code that a store's record names: whoever made the store chose it, not the user.

    Attributes:
        sha256: of it, as `Code.sha256` was when it was recorded; None where the record lacks it.
        trusted: whether the user lets it run.
    """

    sha256: str | None
    trusted: bool = False


@dataclass(frozen=True)
class LoadedFunction:
    """A function of the user's. sha256: of the very bytes that were run."""

    function: Callable[..., Any]
    sha256: str


@dataclass(frozen=True)
class CodeFile:
    """A file of code. path: where it is.  text: its bytes; None of a folder without `__init__.py`."""

    path: Path
    text: bytes | None

    @property
    def package(self) -> bool:
        return self.text is None or self.path.name == "__init__.py"


@dataclass(frozen=True)
class Code:
    """A file of the user's, and its neighbors: the modules of its folder that it imports anywhere in its
    text, and that those import. neighbors: by dotted name, in order."""

    main: CodeFile
    neighbors: Mapping[str, CodeFile]

    @property
    def files(self) -> dict[str, bytes]:
        """The text of each neighbor by its path from the folder."""
        folder = self.main.path.parent
        files = ((s.path.relative_to(folder).as_posix(), s.text) for s in self.neighbors.values())
        return {name: text for name, text in files if text is not None}

    @property
    def sha256(self) -> str:
        """Of the file, in hex; where it has neighbors, of theirs and their names too."""
        own = hashlib.sha256(self.main.text or b"").hexdigest()
        others = {name: hashlib.sha256(text).hexdigest() for name, text in self.files.items()}
        return digest({"file": own, "neighbors": others}) if others else own


def read(name: str) -> Code:
    """The code that `path/file.py:function` names, which is there. Nothing of it runs."""
    path = Path(os.path.realpath(file_of(name)))  # unlike resolve, it takes links in a circle
    main = _opened(path)
    neighbors: dict[str, CodeFile] = {}
    waiting = [("", main)]
    while waiting:
        module, source = waiting.pop()
        for imported in _imports(source, module):
            parts = imported.split(".")
            for end in range(1, len(parts) + 1):
                dotted = ".".join(parts[:end])
                if dotted in neighbors:
                    continue
                neighbor = _neighbor(path.parent, parts[:end])
                if neighbor is None:
                    break
                neighbors[dotted] = neighbor
                waiting.append((dotted, neighbor))
    return Code(main, dict(sorted(neighbors.items())))


def is_user_code(name: str) -> bool:
    """Whether a name means a function in a file."""
    return name.rpartition(":")[0].endswith(".py")


def file_of(name: str) -> Path:
    """The file that `path/file.py:function` names."""
    return Path(name.rpartition(":")[0]).expanduser()


def is_recorded(name: str, recorded: RecordedCode) -> bool:
    """Whether the file that `path/file.py:function` names is there, as it was recorded; nothing of it
    runs."""
    return file_of(name).is_file() and read(name).sha256 == recorded.sha256


def described(name: str, code: Code | None = None) -> str:
    """A file that is there, its neighbors, and what identifies their content, in words. code: of `read`,
    where that is at hand."""
    code = code or read(name)
    beside = "".join(f", {other}" for other in code.files)
    return f"{file_of(name)}{beside} (SHA-256 {code.sha256[:12]})"


def untrusted(*files: str) -> OfframpError:
    """What to tell of code that a store names and that nobody has trusted. files: as `described`."""
    return UntrustedCode(
        f"the store names code to run, {' and '.join(files)}; read it, then add --trust-code "
        "(in Python: trust_code=True)"
    )


def forbid(names: Iterable[str]) -> None:
    """Raises OfframpError for the first of the names that means a user's own code."""
    for name in names:
        if is_user_code(name):
            raise OfframpError(
                f"{name} is your own code, which --no-user-code forbids; leave that option out, or name "
                "something that comes with offramp"
            )


def load(name: str, what: str, recorded: RecordedCode | None = None) -> LoadedFunction:
    """The function that a name means. The file is read once: what is hashed and compared is what runs.

    Args:
        name: `path/file.py:function`.
        what: the setting, for messages.
        recorded: where a store's record names it, and not the user.

    Raises:
        OfframpError: the file is missing or cannot be run, or has no such function; before anything of
            it runs, it is not what was recorded or is not trusted.
    """
    path, function = file_of(name), name.rpartition(":")[2]
    if not os.path.isfile(path):  # noqa: PTH113 - pathlib raises for a name that is too long
        raise OfframpError(f"there is no file {path}; {what} is path/to/file.py:function")
    code = read(name)
    if recorded is not None:
        if code.sha256 != recorded.sha256:
            raise OfframpError(
                f"{described(name, code)} is not what the store recorded "
                f"({(recorded.sha256 or 'nothing')[:12]}); bring it back as it was, or train again"
            )
        if not recorded.trusted:
            raise untrusted(described(name, code))
    try:
        module = _Modules(code).run("")
    except Exception as error:
        raise failed(name, error) from error
    functions = {key: value for key, value in vars(module).items() if callable(value)}
    if function not in functions:
        raise OfframpError(f"{path} has no function '{function}'{nearest(function, functions)}")
    return LoadedFunction(functions[function], code.sha256)


@contextmanager
def running(name: str) -> Iterator[None]:
    """While the block runs what is called `name`, the user's own code: what that raises is told as its
    fault, but for an OfframpError, which says what is wrong. Of other names all passes."""
    try:
        yield
    except OfframpError:
        raise
    except Exception as error:
        if is_user_code(name):
            raise failed(name, error) from error
        raise


def failed(name: str, error: Exception) -> OfframpError:
    """What to tell when the user's code raised `error`: its line, and the reason in one line."""
    main = Path(os.path.realpath(file_of(name)))
    frames = [(Path(f.filename), f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename is not None:
        frames.append((Path(error.filename), error.lineno))
    lines = [(path, line) for path, line in frames if main.parent in path.parents]
    where = ""
    if lines:
        path, line = lines[-1]
        beside = "" if path == main else f" of {path.relative_to(main.parent).as_posix()}"
        where = f" at line {line}{beside}"
    reason = in_line(error)
    return OfframpError(f"{name} failed{where}: {type(error).__name__}: {reason}; correct the file")


def _imports(source: CodeFile, module: str) -> Iterator[str]:
    """Dotted names of what a module's text may import, wherever it says so."""
    try:
        tree = ast.parse(source.text or b"")
    except (SyntaxError, ValueError, RecursionError):
        return  # it will not run either
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node.module or "", node.level, module, source.package)
            if base is not None:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _absolute(name: str, level: int, module: str, package: bool) -> str | None:
    """What `from ..name import` means in a module; None above the top."""
    if not level:
        return name
    up = level - package
    parts = module.split(".")
    if not module or up >= len(parts):
        return None
    return ".".join(filter(None, [*parts[: len(parts) - up], name]))


def _opened(path: Path) -> CodeFile:
    """A file of code. Raises OfframpError for what cannot be read, or is larger than code is."""
    try:
        return CodeFile(path, read_regular(path, DOCUMENT))
    except OSError as error:
        raise OfframpError(f"{path} cannot be read ({error.strerror}); give a file of code") from error


def _neighbor(folder: Path, parts: list[str]) -> CodeFile | None:
    """The module of the folder that has this name; None where there is none, and for names of Python's
    own library and of offramp, which no file stands in for."""
    if not all(parts) or parts[0] in sys.stdlib_module_names or parts[0] == "offramp":
        return None
    place = folder.joinpath(*parts)
    for path in (place / "__init__.py", place.with_name(f"{parts[-1]}.py")):
        if path.is_file():
            return _opened(path)
    if not place.is_dir():
        return None
    installed = importlib.util.find_spec(parts[0]) if len(parts) == 1 else None
    return None if installed is not None and installed.origin is not None else CodeFile(place, None)


@dataclass(frozen=True, eq=False)
class _Modules:
    """The modules of one file of the user's and its neighbors. They are in no list that other code
    looks into: neighbors of the same name in two folders do not mix."""

    code: Code
    ran: dict[str, ModuleType] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        return f"offramp_user_{self.code.main.path.stem}"

    def run(self, dotted: str) -> ModuleType:
        """The module of that name; "" is the file itself."""
        if dotted in self.ran:
            return self.ran[dotted]
        source = self.code.neighbors[dotted] if dotted else self.code.main
        parent, _, last = dotted.rpartition(".")
        above = self.run(parent) if parent else None
        if dotted in self.ran:  # its package imports it
            return self.ran[dotted]
        name = f"{self.prefix}.{dotted}" if dotted else self.prefix
        # Python puts the package's folder there; a file has no __path__.
        below: list[str] | None = [] if dotted and source.package else None
        spec = importlib.util.spec_from_file_location(
            name, source.path, submodule_search_locations=below
        )
        if spec is None:
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module = importlib.util.module_from_spec(spec)
        if self.code.neighbors:
            vars(module)["__builtins__"] = {**vars(builtins), "__import__": self._import}
        self.ran[dotted] = module
        before = sys.modules.get(name)
        sys.modules[name] = module  # dataclasses look their module up while they are made
        try:
            # Not by the loader, which reads the file again, or a compiled copy that lies beside it.
            exec(compile(source.text or b"", str(source.path), "exec", dont_inherit=True), vars(module))
        except BaseException:
            del self.ran[dotted]
            raise
        finally:
            del sys.modules[name]
            if before is not None:
                sys.modules[name] = before
        if above is not None:
            setattr(above, last, module)
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Iterable[str] | None = (),
        level: int = 0,
    ) -> Any:
        """What an `import` in these modules does."""
        here = str((globals or {}).get("__name__", "")).removeprefix(self.prefix).lstrip(".")
        package = here in self.code.neighbors and self.code.neighbors[here].package
        dotted = _absolute(name, level, here, package)
        if dotted is None or dotted not in self.code.neighbors:
            return builtins.__import__(name, globals, locals, tuple(fromlist or ()), level)
        module = self.run(dotted)
        for each in fromlist or ():
            names = getattr(module, "__all__", ()) if each == "*" else (each,)
            for below in (f"{dotted}.{part}" for part in names):
                if below in self.code.neighbors:
                    self.run(below)
        return module if fromlist else self.run(dotted.partition(".")[0])
