"""A HyperModel or `build(hp)` that a program gives as an object: named, and sent by value.

What lies in a file of its own is named as that file. All else, such as what a notebook cell
defines, is pickled by value (cloudpickle) into memory, reaches the sweep's workers with their
tasks, and is stored nowhere: another process that goes on with the sweep is given the object again,
and a digest of its code and of what that refers to tells whether it is the same.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from search_spaces.errors import InputError
from search_spaces.user_spaces.loading import INSTALLED, failure_text
from search_spaces.user_spaces.reference import GIVEN, GivenSpace

_NAMELESS = {"__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__",
             "__static_attributes__", "__abstractmethods__", "_abc_impl"}  # fmt: skip


def given_space(space: object) -> str:
    """How settings name an object: FILE.py:NAME or MODULE:NAME, or a `GivenSpace` with its value.

    Raises:
        InputError: It is no HyperModel (class or instance) and no function, or cannot be sent.
    """
    is_made = callable(getattr(space, "build", None))  # Of a HyperModel, and of its class.
    if not is_made and (isinstance(space, type) or not callable(space)):
        raise InputError(
            "space must be a name, FILE.py:NAME, what get_space returned, a "
            "keras_tuner.HyperModel (class or instance) or a function build(hp). Received: "
            f"{space!r}."
        )
    place = _place(space)
    if place is not None:
        return place
    import cloudpickle

    name = _name_of(space)
    try:
        payload = cloudpickle.dumps(space)
    except Exception as error:  # Whatever an object raises that cannot be pickled.
        raise InputError(
            f"The space '{name}' cannot be sent to worker processes: {failure_text(error)}. Make "
            f"such objects inside '{name}' instead of outside, or put it into a file and name it "
            f"FILE.py:{name}."
        ) from error
    found = GivenSpace(f"{GIVEN}{name}@{_digest_of(space)[:12]}")
    found.payload, found.base, found.path = payload, _base(), tuple(_search_path())
    return found


def _place(space: object) -> str | None:
    """Where an object lies under a name of its own in a module that workers can import."""
    name = getattr(space, "__qualname__", "")
    module = sys.modules.get(getattr(space, "__module__", None) or "")
    file = getattr(module, "__file__", None) or ""
    is_main = module is sys.modules.get("__main__")  # To import it would run the program again.
    if module is None or is_main or not name.isidentifier() or not file.endswith(".py"):
        return None
    if getattr(module, name, None) is not space:
        return None
    where = module.__name__ if INSTALLED & set(Path(file).parts) else str(Path(file).resolve())
    return f"{where}:{name}"


def _name_of(space: object) -> str:
    while isinstance(space, functools.partial):
        space = space.func
    name = getattr(space, "__name__", None) or type(space).__name__
    return re.sub(r"\W", "", str(name)) or "space"


def _base() -> str:
    """The folder of the program, or of the notebook: files under it are the space's own."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return str(Path(script).resolve().parent if script else Path.cwd())


def _search_path() -> Iterator[str]:
    for folder in sys.path:
        if Path(folder).is_dir():  # The empty one is the working folder.
            yield str(Path(folder).absolute())


# Digests


def _digest_of(value: object) -> str:
    """Of code and of all that it refers to, alike in every process of the same Python.

    A pickle would not do: it holds file names, line numbers and random numbers of classes.
    """
    digest = hashlib.sha256()
    _feed(value, lambda text: digest.update(f"{text}\n".encode()), {})
    return digest.hexdigest()


Tell = Callable[[str], None]
Seen = dict[int, tuple[int, Any]]
"""Objects that may lead to themselves, by their id: number, and the object so that it stays."""


def _feed(value: Any, tell: Tell, seen: Seen) -> None:
    """Tells a value piece by piece; an object that comes again is told by its number."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return tell(repr(value))
    if isinstance(value, ModuleType):
        return tell(f"module {value.__name__}")
    if _is_importable(value):
        return tell(f"{value.__module__}.{value.__qualname__}")
    if not isinstance(value, tuple | CodeType):  # Equal ones may or may not be one object.
        if id(value) in seen:
            return tell(f"again {seen[id(value)][0]}")
        seen[id(value)] = len(seen), value
    parts = _parts(value)
    tell(f"{type(value).__name__} {len(parts)}")
    for part in parts:
        _feed(part, tell, seen)
    return None


def _parts(value: Any) -> Sequence[Any]:  # noqa: PLR0911
    """What a value consists of, in an order that does not depend on chance."""
    match value:
        case tuple() | list():
            return value
        case set() | frozenset():
            return sorted(map(_digest_of, value))
        case dict():
            return [part for item in value.items() for part in item]
        case CodeType():
            return [value.co_code, value.co_consts, value.co_names, value.co_varnames,
                    value.co_freevars, value.co_cellvars, value.co_flags]  # fmt: skip
        case FunctionType():
            return [value.__code__, value.__defaults__, value.__kwdefaults__,
                    dict(_outside(value))]  # fmt: skip
        case type():
            own = {name: part for name, part in vars(value).items() if name not in _NAMELESS}
            return [value.__qualname__, value.__bases__, dict(sorted(own.items()))]
        case MethodType():
            return [value.__func__, value.__self__]
        case staticmethod() | classmethod():
            return [value.__func__]
        case property():
            return [value.fget, value.fset, value.fdel]
    return _reduced(value)


def _outside(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function uses that is defined outside of it: globals by name, then its closure."""
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # An empty cell.
            yield f"closure {name}", cell.cell_contents


def _global_names(code: CodeType) -> set[str]:
    found = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    inner = (part for part in code.co_consts if isinstance(part, CodeType))
    return found.union(*map(_global_names, inner))


def _reduced(value: Any) -> Sequence[Any]:
    """An instance as pickle takes it apart."""
    try:
        parts = value.__reduce_ex__(4)
    except Exception:  # What only cloudpickle can pickle counts by its type.
        return [type(value)]
    if isinstance(parts, str):
        return [parts]
    plain = [None if part is None else list(part) for part in parts[3:5]]
    return [*parts[:3], *plain]


def _is_importable(value: Any) -> bool:
    """Whether a pickle names a function or class instead of holding it."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(name, str) or module in (None, "__main__") or module not in sys.modules:
        return False
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value
