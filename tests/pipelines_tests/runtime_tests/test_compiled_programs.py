"""What a backend compiles is found again by other processes, and only by those that can run it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.runtime import compiled_programs
from pipelines.runtime.compiled_programs import MAX_BYTES, compiled_variables

ROOT = Path(__file__).parents[3]
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
    folder = Path("/somewhere/compiled")
    found = compiled_variables(folder, backend, {})
    assert f"/somewhere/compiled/{backend}-" in found[variable]
    mine = compiled_variables(folder, backend, {variable: "mine"})
    assert mine == {variable: "mine"}, "what the environment says stands"
    assert variable not in os.environ
    monkeypatch.setattr(compiled_programs.platform, "machine", lambda: "another")
    assert compiled_variables(folder, backend, {})[variable] != found[variable]


def test_a_system_without_linux_files_has_a_folder_too(monkeypatch):
    def missing(*args: object, **kwargs: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    environment = compiled_variables(Path("/somewhere/compiled"), "torch", {})
    assert "/somewhere/compiled/torch-" in environment["TORCHINDUCTOR_CACHE_DIR"]


@pytest.mark.backends
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_jax_takes_from_the_folder_what_another_process_compiled(tmp_path):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_LOG_COMPILES": "1"}
    environment |= compiled_variables(tmp_path, "jax", environment)
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


WORKERS = """
import sys
from pathlib import Path
from sweeps.executors.base import Slot
from sweeps.interrupts import Interrupts
from sweeps.workers.start import run_job, start_workers

BACKEND = sys.argv[1]

def compile_job(argument, report, slot):
    from sweeps.workers.jobs import configured
    configured(slot, 0)
    if BACKEND == "jax":
        import jax, jax.numpy as jnp
        return float(jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((8, 8)))[0, 0])
    import tensorflow as tf
    compiled = tf.function(lambda x: tf.sin(x) @ x, jit_compile=True)
    return float(compiled(tf.ones((8, 8)))[0, 0])

def kept(folder):
    # What is compiled again is written again, into another file of the same name.
    pattern = "*-cache" if BACKEND == "jax" else "*.pb"
    return sorted((path.name, path.stat().st_ino) for path in Path(folder).glob(f"*/{pattern}"))

def compiled(folder):
    executor = start_workers(Path("log"), BACKEND, compiled=folder and Path(folder).absolute())
    run_job(executor, compile_job, None, Slot(0, 1), "job.log", print, Interrupts())
    executor.close()

if __name__ == "__main__":
    compiled(None)  # As `promote` before a sweep: its server has imported the backend already.
    compiled("first")
    first = kept("first")
    assert first
    compiled("first")
    assert kept("first") == first, "a hit adds nothing"
    if BACKEND == "jax":
        assert "cache hit" in Path("job.log").read_text().lower()
    compiled("second")
    assert kept("second"), "another folder is heeded, too"
    assert kept("first") == first
"""


def workers_share(backend: str, folder: Path) -> None:
    (folder / "workers.py").write_text(WORKERS)
    environment = {**os.environ, "JAX_LOG_COMPILES": "1", "PYTHONPATH": str(ROOT)}
    for name in ("JAX_COMPILATION_CACHE_DIR", "TF_XLA_FLAGS"):
        environment.pop(name, None)
    command = [sys.executable, "workers.py", backend]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_workers_share_what_xla_compiles_though_their_server_knew_no_folder(tmp_path):
    workers_share("tensorflow", tmp_path)


@pytest.mark.backends
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_workers_share_what_jax_compiles_though_their_server_knew_no_folder(tmp_path):
    workers_share("jax", tmp_path)
