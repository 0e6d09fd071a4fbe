"""Sweeps on JAX, on the cores."""

from __future__ import annotations

import importlib.util

import pytest
from backend_contract import BackendContract


@pytest.mark.backends
@pytest.mark.timeout(900)
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
class TestJax(BackendContract):
    """The first test pays for three sweeps."""

    backend, compute = "jax", "JAX, float32, jit on"
