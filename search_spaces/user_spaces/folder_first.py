"""A user's folder comes first while a file of it is imported, and behind Python's own afterwards.

A project may have a package that is called like one of ours, or a `queue.py`. While its files are
imported its own modules are meant, as in a script of that folder. What is imported later, by a
library in the middle of a training, means Python's.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

OURS = ("search_spaces", "pipelines", "sweeps", "tracking", "keras_sweeps")
INSTALLED = {"site-packages", "dist-packages"}
_HOME = Path(__file__).parents[2]
_set_aside: dict[str, dict[str, ModuleType]] = {}
"""Folder -> its modules that have the names of ours."""


class _Finder(MetaPathFinder):
    """Finds packages in one folder only.

    A package without `__init__.py` comes after one that has it, wherever that is.
    """

    def __init__(self, names: Collection[str], folder: str) -> None:
        self._names, self._folder = names, folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The package of that name, where it is one of them."""
        if fullname not in self._names:
            return None
        return importlib.machinery.PathFinder.find_spec(fullname, [self._folder], target)


@contextmanager
def folder_first(folder: str) -> Iterator[None]:
    """Modules of the folder are found before all others, also where ours have their names."""
    names = _names_of_ours(folder)
    for name in names:
        importlib.import_module(name)  # Before the folder can take its place, for good.
    ours = _taken_out(names)
    sys.modules.update(_set_aside.get(folder, {}))
    finder = _Finder(names, folder)
    sys.meta_path.insert(0, finder)
    _remove(folder)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        theirs = _taken_out(names)
        _set_aside.setdefault(folder, {}).update(theirs)
        sys.modules.update(ours)
        # A function of theirs may import what ours lack when it is called.
        for name, module in theirs.items():
            if name not in ours and not _is_ours(name):
                sys.modules[name] = module
        for name in names:
            _search_also(ours[name], str(Path(folder, name)))
        _remove(folder)
        sys.path.insert(_first_installed(), folder)


def modules_set_aside() -> list[ModuleType]:
    """Modules of users that are in use and not in `sys.modules`."""
    return [module for modules in _set_aside.values() for module in modules.values()]


def is_free_name(name: str, folder: str) -> bool:
    """Whether a file of the folder can be the module of that name, without hiding another one."""
    others = [place for place in sys.path if place != folder]
    taken = name in sys.modules or name in sys.stdlib_module_names or name in OURS
    return not taken and importlib.machinery.PathFinder.find_spec(name, others) is None


def has_names_of_ours(folder: str) -> bool:
    """Whether the folder has a package or module that is called like one of ours."""
    return bool(_names_of_ours(folder))


def _names_of_ours(folder: str) -> tuple[str, ...]:
    """Which of our names the folder has, unless it is the one that ours are in."""
    if Path(folder) == _HOME:
        return ()
    there = importlib.machinery.PathFinder.find_spec
    return tuple(name for name in OURS if there(name, [folder]) is not None)


def _taken_out(names: Collection[str]) -> dict[str, ModuleType]:
    """Removes the packages of these names, with all that is in them, from `sys.modules`."""
    found = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in found}


def _search_also(package: ModuleType, folder: str) -> None:
    """Has modules that a package of ours lacks found in a folder."""
    path = getattr(package, "__path__", None)
    if path is not None and folder not in path:
        path.append(folder)


def _is_ours(name: str) -> bool:
    """Whether we have a module of that name, imported or not."""
    place = _HOME.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").exists()


def _remove(folder: str) -> None:
    while folder in sys.path:
        sys.path.remove(folder)


def _first_installed() -> int:
    """Behind what Python brings, and before what is installed."""
    places = (k for k, place in enumerate(sys.path) if INSTALLED & set(Path(place).parts))
    return next(places, len(sys.path))
