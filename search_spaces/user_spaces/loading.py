"""A user's HyperModel, imported and made. Only for processes that may have Keras."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pickle
import re
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from search_spaces.errors import InputError, unknown_name
from search_spaces.user_spaces.folder_first import (
    INSTALLED,
    OURS,
    folder_first,
    has_names_of_ours,
    is_free_name,
    modules_set_aside,
)
from search_spaces.user_spaces.import_guard import (
    WAY_OUT,
    ImportStoppedError,
    training_prevented,
)
from search_spaces.user_spaces.keras_settings import settings_kept
from search_spaces.user_spaces.reference import (
    RULE,
    GivenSpace,
    Reference,
    Sources,
    file_digest,
)

if TYPE_CHECKING:
    import keras_tuner

    from search_spaces.space import Shape

CLASSES = ("num_classes", "classes")
"""How HyperModels call the number of classes; Keras Tuner's own say `classes`."""

_stopped: dict[str, str] = {}
"""Files whose import ended before they trained or searched, each with a phrase that says where."""
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def load_hypermodel(
    reference: Reference, input_shape: Shape, num_classes: int
) -> keras_tuner.HyperModel:
    """The HyperModel that a reference names; what takes the data's shape is given it.

    Raises:
        InputError: Its source cannot be imported, has no such name, or it is no HyperModel; or it
            changes Keras' settings.
    """
    import keras_tuner

    with settings_kept(reference.label):
        found = _defined(reference) if reference.given is None else received(reference.given)
    if isinstance(found, keras_tuner.HyperModel):
        return found
    given = {"input_shape": input_shape, **dict.fromkeys(CLASSES, num_classes)}
    if inspect.isclass(found):
        if not issubclass(found, keras_tuner.HyperModel):
            raise _no_space(reference, f"the class {found.__name__}")
        return _made(reference, found, given)
    if not callable(found):
        raise _no_space(reference, f"a {type(found).__name__}")
    wanted = [name for name in _parameters(found) if name in given]
    from keras_tuner.src.engine.hypermodel import get_hypermodel

    if not wanted:
        return get_hypermodel(found)
    return get_hypermodel(lambda hp: found(hp, **{name: given[name] for name in wanted}))


def _defined(reference: Reference) -> Any:
    """What is defined under that name in its module."""
    module = _imported(reference)
    found = getattr(module, reference.attribute, None)
    if found is None and reference.file in _stopped:
        raise InputError(
            f"'{reference.attribute}' is not defined in {Path(reference.file).name} before it "
            f"{_stopped[reference.file]}, where its import ends. {WAY_OUT}, or move "
            f"'{reference.attribute}' above it."
        )
    if found is None:
        names = [name for name, value in vars(module).items() if _may_be_space(value, module)]
        if names:
            file = Path(reference.file).name
            raise unknown_name(f"space in {file}", reference.attribute, names)
        raise InputError(f"'{reference.text}' is not defined there. {RULE}")
    return found


def import_notes(reference: Reference) -> tuple[str, ...]:
    """What people should know of the import of a space that has been loaded."""
    if reference.file not in _stopped:
        return ()
    return (
        f"{Path(reference.file).name} {_stopped[reference.file]} as soon as it is imported, and "
        "every trial imports it: neither that nor what follows it was run, only what is defined "
        f"before it counts. {WAY_OUT}",
    )


def received(space: GivenSpace) -> Any:
    """The object that a program gave; modules are found where that program finds them.

    Raises:
        InputError: It needs what this process cannot import.
    """
    # Before what is there, in their order, as in the program; they stay, for later imports.
    sys.path[:0] = [folder for folder in space.path if folder not in sys.path]
    try:
        with ExitStack() as stack:
            for folder in filter(has_names_of_ours, space.bases):
                stack.enter_context(folder_first(folder))
            stack.enter_context(training_prevented())
            # From the program that started this process, which has it from itself.
            return pickle.loads(space.payload)  # noqa: S301
    except (Exception, SystemExit, ImportStoppedError) as error:
        raise InputError(
            f"The space '{space.name}' cannot be opened in a worker process: "
            f"{failure_text(error)}. Put what it needs into files that Python can import."
        ) from error


def loaded_sources(reference: Reference) -> Sources:
    """The space's own source files, of all that has been imported by now.

    Those are the modules beside it: of its project's folder without what is installed in it, or of
    its package where that is installed; for an object, of the program's own folders.
    """
    bases, ours = reference.bases, Path(__file__).parents[2]
    paths = {reference.file} - {""}
    for module in [*sys.modules.values(), *modules_set_aside()]:
        file = getattr(module, "__file__", None)
        if not file or not file.endswith(".py"):
            continue
        path = Path(file).resolve()
        inside = any(
            path.is_relative_to(base) and not INSTALLED & set(path.relative_to(base).parts)
            for base in bases
        )
        if inside and not any(path.is_relative_to(ours / name) for name in OURS):
            paths.add(str(path))
    return tuple((path, file_digest(path)) for path in sorted(paths))


def _place(error: ImportStoppedError, file: str) -> str:
    """What stopped an import, with the line of `file` that led to it."""
    lines = _lines_of(error, file)
    return f"{error} (line {lines[-1]})" if lines else str(error)


def failure_text(error: BaseException, file: str = "") -> str:
    """An exception in one line, with the line of `file` where it came up."""
    lines = [line.strip() for line in _ESCAPES.sub("", str(error)).splitlines() if line.strip()]
    # Keras says in its first line where an error came up, and what it is in the second.
    text = type(error).__name__ + (f": {' '.join(lines[:2])[:300]}" if lines else "")
    places = _lines_of(error, file)
    if isinstance(error, SyntaxError) and error.filename == file:
        places = [error.lineno]
    return f"{text} ({Path(file).name}, line {places[-1]})" if places else text


def _lines_of(error: BaseException, file: str) -> list[int | None]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame.lineno for frame in frames if frame.filename == file]


def _imported(reference: Reference) -> ModuleType:
    try:
        if not reference.root:
            with training_prevented():
                return importlib.import_module(reference.module)
        with folder_first(reference.root), training_prevented():
            if "." in reference.module:
                return importlib.import_module(reference.module)
            return _file_module(reference)
    except ImportStoppedError as error:
        raise InputError(
            f"'{reference.text}' cannot be imported: it {_place(error, reference.file)} as soon as "
            f"it is imported, and every trial imports it. {WAY_OUT}."
        ) from error
    except (Exception, SystemExit) as error:
        raise InputError(
            f"'{reference.text}' cannot be imported: {failure_text(error, reference.file)}."
        ) from error


def _file_module(reference: Reference) -> ModuleType:
    """A lone file as a module, also where its name is no identifier or belongs to another one."""
    name = reference.module
    for used in (name, other := re.sub(r"\W", "_", f"space_{name}")):
        known = sys.modules.get(used)
        if known is not None and getattr(known, "__file__", None) == reference.file:
            return known
    if not (name.isidentifier() and is_free_name(name, reference.root)):
        name = other
    spec = importlib.util.spec_from_file_location(name, reference.file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # As an import does: dataclasses and Keras look modules up.
    try:
        spec.loader.exec_module(module)
    except ImportStoppedError as error:
        _stopped[reference.file] = _place(error, reference.file)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _made(reference: Reference, found: Any, given: dict[str, Any]) -> keras_tuner.HyperModel:
    parameters = _parameters(found)
    lacking = [
        name
        for name, parameter in parameters.items()
        if name not in given and parameter.default is inspect.Parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]  # fmt: skip
    if lacking:
        raise InputError(
            f"The class '{reference.label}' needs {', '.join(lacking)} beside input_shape and "
            "num_classes (or classes), which are all that it is given. Give the others a default, "
            "or name an instance."
        )
    try:
        return found(**{name: value for name, value in given.items() if name in parameters})
    except Exception as error:  # The user's code raises whatever it likes.
        raise InputError(
            f"The HyperModel '{reference.label}' cannot be made: "
            f"{failure_text(error, reference.file)}."
        ) from error


def _parameters(found: Any) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(found).parameters)
    except (TypeError, ValueError):
        return {}


def _may_be_space(value: object, module: ModuleType) -> bool:
    import keras_tuner

    if isinstance(value, keras_tuner.HyperModel):
        return True
    if getattr(value, "__module__", None) != module.__name__:
        return False
    is_class = inspect.isclass(value) and issubclass(value, keras_tuner.HyperModel)
    return is_class or inspect.isfunction(value)


def _no_space(reference: Reference, what: str) -> InputError:
    return InputError(
        f"'{reference.label}' is {what}, not a keras_tuner.HyperModel (a class or an instance) or "
        "a function build(hp)."
    )
