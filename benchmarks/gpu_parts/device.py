"""Part 1: the GPUs that there are, and whether list and meter keep their contracts on them.

The checks are those of `tests/support/gpu_contract.py`, called one by one without pytest.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from gpu_parts.findings import Finding, Task
from sweeps.resources.gpus import NvidiaSmi
from sweeps.resources.nvml import MeterError, NvmlMeter


def find(task: Task) -> Iterator[Finding]:
    """The list of GPUs, then each contract."""
    gpus = NvidiaSmi().gpus()
    names = "; ".join(
        f"{gpu.index}: {gpu.name}, {(gpu.memory_bytes or 0) / 2**30:.0f} GiB" for gpu in gpus
    )
    yield Finding("GPUs that nvidia-smi lists", names, expected="at least one", n=len(gpus),
                  held=bool(gpus))  # fmt: skip
    with _pytest_or_less() as patching:
        import gpu_contract

        yield _kept("inventory", gpu_contract.GpuInventoryContract(), NvidiaSmi, patching)
        yield _kept("meter", gpu_contract.GpuMeterContract(), lambda: _meter(task), patching)


def _meter(task: Task) -> NvmlMeter:
    if not task.stand_in:
        return NvmlMeter()
    import fake_gpus

    return NvmlMeter(fake_gpus.FakeNvml())


def _kept(name: str, contract: Any, make: Callable[[], Any], patching: Any) -> Finding:
    """Whether all checks of a contract hold of the real thing."""
    checks = [check for check in dir(contract) if check.startswith("test_")]
    broken = []
    for check in checks:
        method = getattr(contract, check)
        with patching() as monkeypatch:
            given = {"monkeypatch": monkeypatch} if "monkeypatch" in _arguments(method) else {}
            try:
                method(**{name: make()}, **given)
            except (AssertionError, MeterError, OSError, RuntimeError) as error:
                said = (str(error).strip().splitlines() or [type(error).__name__])[0]
                words = check.removeprefix("test_").replace("_", " ")
                broken.append(f"{words}: {said}")
    return Finding(
        f"contract of the {name}", f"{len(checks) - len(broken)} of {len(checks)} checks",
        expected="all", n=len(checks), kind="promise", held=not broken, note="; ".join(broken),
    )  # fmt: skip


def _arguments(method: Callable[..., None]) -> list[str]:
    return list(inspect.signature(method).parameters)


@contextlib.contextmanager
def _pytest_or_less() -> Iterator[Callable[[], Any]]:
    """What patches the environment; and where pytest is missing, what the contracts use of it."""
    try:
        import pytest

        yield pytest.MonkeyPatch.context
    except ImportError:
        less = ModuleType("pytest")
        less.MonkeyPatch = _Environment  # type: ignore[attr-defined]
        less.raises = _raises  # type: ignore[attr-defined]
        sys.modules["pytest"] = less
        yield _Environment.context


class _Environment:
    """Sets variables, as pytest's MonkeyPatch does."""

    def setenv(self, name: str, value: str) -> None:
        os.environ[name] = value

    @classmethod
    @contextlib.contextmanager
    def context(cls) -> Iterator[_Environment]:
        before = dict(os.environ)
        try:
            yield cls()
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextlib.contextmanager
def _raises(kind: type[BaseException], match: str = "") -> Iterator[None]:
    """As `pytest.raises`."""
    try:
        yield
    except kind as error:
        assert re.search(match, str(error)), f"{match!r} is not in {error}"
    else:
        raise AssertionError(f"no {kind.__name__} was raised")
