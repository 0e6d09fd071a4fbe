"""What a backend compiles is found again by other processes, and only by those that can run it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.runtime import compiled_programs
from pipelines.runtime.compiled_programs import MAX_BYTES, share_compiled

JAX = """
import jax, jax.numpy as jnp
print(float(jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((8, 8)))[0, 0]))
"""


@pytest.mark.parametrize(
    ("backend", "variable"),
    [
        ("jax", "JAX_COMPILATION_CACHE_DIR"),
        ("torch", "TORCHINDUCTOR_CACHE_DIR"),
        ("tensorflow", "TF_XLA_FLAGS"),
    ],
)
def test_each_backend_is_told_a_folder_for_its_version_and_machine(backend, variable, monkeypatch):
    environment: dict[str, str] = {}
    share_compiled(Path("/somewhere/compiled"), backend, environment)
    assert f"/somewhere/compiled/{backend}-" in environment[variable]
    other: dict[str, str] = {}
    monkeypatch.setattr(compiled_programs.platform, "machine", lambda: "another")
    share_compiled(Path("/somewhere/compiled"), backend, other)
    assert other[variable] != environment[variable]
    before = {variable: "mine"}
    share_compiled(Path("/somewhere/compiled"), backend, before)
    assert before == {variable: "mine"}, "what the environment says stands"


def test_a_system_without_linux_files_has_a_folder_too(monkeypatch):
    def missing(*args: object, **kwargs: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    environment: dict[str, str] = {}
    share_compiled(Path("/somewhere/compiled"), "torch", environment)
    assert "/somewhere/compiled/torch-" in environment["TORCHINDUCTOR_CACHE_DIR"]


@pytest.mark.backends
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_jax_takes_from_the_folder_what_another_process_compiled(tmp_path):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_LOG_COMPILES": "1"}
    share_compiled(tmp_path, "jax", environment)
    assert environment["JAX_COMPILATION_CACHE_MAX_SIZE"] == str(MAX_BYTES)

    def run() -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-c", JAX], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout, done.stderr

    first = run()
    (folder,) = tmp_path.iterdir()
    kept = {path.name for path in folder.glob("*-cache")}
    assert kept
    second = run()
    assert second[0] == first[0]
    assert {path.name for path in folder.glob("*-cache")} == kept
    hits = [line for line in second[1].splitlines() if "cache hit" in line.lower()]
    assert hits and not [line for line in first[1].splitlines() if "cache hit" in line.lower()]
