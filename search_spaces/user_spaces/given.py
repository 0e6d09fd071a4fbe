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
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

from search_spaces.errors import InputError
from search_spaces.user_spaces.folder_first import INSTALLED
from search_spaces.user_spaces.loading import failure_text
from search_spaces.user_spaces.reference import GIVEN, GivenSpace

_NAMELESS = {"__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__",
             "__static_attributes__", "__abstractmethods__", "_abc_impl"}  # fmt: skip
"""What Python writes into a class, by itself or from where it stands."""


class UnknownPartError(TypeError):
    """A space refers to an object that cannot be taken apart, or told from another one."""


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
    reference = _reference_of(space)
    if reference is not None:
        return reference
    import cloudpickle

    name = _name_of(space)
    try:
        payload = cloudpickle.dumps(space)
        digest = _digest_of(space, {})
    except Exception as error:  # Whatever an object raises that cannot be pickled.
        raise InputError(
            f"The space '{name}' cannot be sent to worker processes: {failure_text(error)}. Make "
            f"such objects inside '{name}' instead of outside, or put it into a file and name it "
            f"FILE.py:{name}."
        ) from error
    found = GivenSpace(f"{GIVEN}{name}@{digest[:12]}")
    found.payload, found.path = payload, tuple(_search_path())
    found.bases = tuple(filter(_is_users, found.path))
    return found


def _reference_of(space: object) -> str | None:
    """The name of an object that workers can import from its module."""
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
    if isinstance(space, MethodType):  # Keras Tuner wraps `build`.
        space = space.__self__
    name = getattr(space, "__name__", None) or type(space).__name__
    return re.sub(r"\W", "", str(name)) or "space"


def _search_path() -> Iterator[str]:
    for folder in sys.path:
        if Path(folder).is_dir():  # The empty one is the working folder.
            yield str(Path(folder).absolute())


def _is_users(folder: str) -> bool:
    """Whether a folder holds modules of the program, neither Python's nor installed ones."""
    of_python = {str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib")}
    path = Path(folder).resolve()
    return not INSTALLED & set(path.parts) and not any(
        path.is_relative_to(place) for place in of_python
    )


# Digests

Seen = dict[int, tuple[int, Any]]
"""Objects that may lead to themselves, by their id: number, and the object so that it stays."""


def _digest_of(value: object, seen: Seen) -> str:
    """Of code and of all that it refers to, alike in every process of the same Python.

    A pickle would not do: it holds file names, line numbers and random numbers of classes.

    Raises:
        UnknownPartError: It refers to something that cannot be taken apart.
    """
    digest = hashlib.sha256()
    _feed(value, digest, seen)
    return digest.hexdigest()


def _feed(value: Any, digest: Any, seen: Seen) -> None:
    """Feeds a value piece by piece; an object that comes again is fed as its number."""
    known = _text_of(value, seen)
    if known is not None:
        digest.update(known.encode(errors="surrogatepass"))
    elif isinstance(value, bytes | bytearray):
        digest.update(b"%d bytes " % len(value))
        digest.update(value)
    else:
        parts = _parts(value, seen)
        digest.update(f"{type(value).__name__} {len(parts)}\n".encode())
        for part in parts:
            _feed(part, digest, seen)


def _text_of(value: Any, seen: Seen) -> str | None:
    """What a value is in a line; None where its parts have to be told."""
    if value is None or isinstance(value, bool | int | float | complex | str):
        return f"{value!r}\n"
    if isinstance(value, ModuleType):
        return f"module {value.__name__}\n"
    if _is_importable(value):
        return f"{value.__module__}.{value.__qualname__}\n"
    if isinstance(value, tuple | CodeType | bytes | bytearray):
        return None  # Equal ones may or may not be one object.
    if id(value) in seen:
        return f"again {seen[id(value)][0]}\n"
    seen[id(value)] = len(seen), value
    return None


def _parts(value: Any, seen: Seen) -> Sequence[Any]:  # noqa: PLR0911
    """What a value consists of, in an order that does not depend on chance."""
    match value:
        case tuple() | list():
            return value
        case set() | frozenset():
            return sorted(_digest_of(part, dict(seen)) for part in value)
        case dict() | MappingProxyType():
            return [part for item in value.items() for part in item]
        case CodeType():
            return [value.co_code, _constants(value), value.co_names, value.co_varnames,
                    value.co_freevars, value.co_cellvars, value.co_flags]  # fmt: skip
        case FunctionType():
            return [value.__code__, value.__defaults__, value.__kwdefaults__,
                    dict(_used_from_outside(value)), value.__dict__]  # fmt: skip
        case type():
            own = {name: part for name, part in vars(value).items() if name not in _NAMELESS}
            return [value.__qualname__, value.__bases__, dict(sorted(own.items()))]
        case MethodType():
            return [value.__func__, value.__self__]
        case staticmethod() | classmethod():
            return [value.__func__]
        case property():
            return [value.fget, value.fset, value.fdel]
    return _keras_parts(value) or _pickled_parts(value)


def _constants(code: CodeType) -> tuple[Any, ...]:
    """Its constants; in Python 3.13 that of a class has the line where it stands among them."""
    if "__firstlineno__" not in code.co_names:
        return code.co_consts
    return tuple(constant for constant in code.co_consts if constant != code.co_firstlineno)


def _used_from_outside(function: FunctionType) -> Iterator[tuple[str, Any]]:
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


def _keras_parts(value: Any) -> Sequence[Any]:
    """Configuration and weights of a layer, model or optimizer; none for all else.

    Pickled it is a zip file, which holds the time.
    """
    keras = sys.modules.get("keras")
    if keras is None or not isinstance(value, keras.Layer | keras.optimizers.Optimizer):
        return []
    variables = value.weights if isinstance(value, keras.Layer) else value.variables
    return [type(value), value.get_config(), [keras.ops.convert_to_numpy(v) for v in variables]]


def _pickled_parts(value: Any) -> Sequence[Any]:
    """An instance as pickle takes it apart."""
    try:
        parts = value.__reduce_ex__(4)
    except Exception as error:  # As it pleases: of any class.
        raise UnknownPartError(f"it refers to a {type(value).__name__}") from error
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
