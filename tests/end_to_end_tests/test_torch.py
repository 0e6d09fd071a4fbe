"""Sweeps on PyTorch, on the cores."""

from __future__ import annotations

import importlib.util

import pytest
from backend_contract import BackendContract


@pytest.mark.backends
@pytest.mark.timeout(900)
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
class TestTorch(BackendContract):
    """The first test pays for three sweeps."""

    backend, compute = "torch", "PyTorch, float32, jit off"
