"""Which GPUs there are and which of them are used; real ones keep the contract where there are any."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import fake_gpus
import gpu_contract
import pytest

from pipelines.runtime.compute import BACKENDS, TITLES
from search_spaces.errors import InputError
from sweeps.cli.main import main
from sweeps.resources import gpus, machine
from sweeps.resources.gpus import Gpu, GpuQueryError, NvidiaSmi, chosen_gpus, missing_cuda
from sweeps.resources.machine import Machine, allot, detect_machine, with_gpus
from sweeps.settings import check_gpus

TWO = fake_gpus.FakeInventory().gpus()


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


LISTING = "printf '0, GPU-aaaa, 144384, NVIDIA H200\\n1, GPU-bbbb, [N/A], NVIDIA GB10, rev. 2\\n'"


class TestFakeInventory(gpu_contract.GpuInventoryContract):
    @pytest.fixture
    def inventory(self):
        return fake_gpus.FakeInventory()


class TestNvidiaSmiWithAStandIn(gpu_contract.GpuInventoryContract):
    """The real reader on the output of a program that prints what nvidia-smi does."""

    @pytest.fixture
    def inventory(self, tmp_path, monkeypatch):
        nvidia_smi(tmp_path, monkeypatch, LISTING)
        return NvidiaSmi()


class TestNvidiaSmi(gpu_contract.GpuInventoryContract):
    @pytest.fixture
    def inventory(self):
        try:
            found = NvidiaSmi().gpus()
        except GpuQueryError as error:
            pytest.skip(str(error))
        if not found:
            pytest.skip("this machine has no GPU that nvidia-smi lists")
        return NvidiaSmi()


def test_memory_that_is_not_told_is_unknown_and_names_may_hold_commas(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, LISTING)
    assert NvidiaSmi().gpus() == (
        Gpu("0", "NVIDIA H200", 144384 * 2**20, "GPU-aaaa"),
        Gpu("1", "NVIDIA GB10, rev. 2", None, "GPU-bbbb"),
    )


@pytest.mark.parametrize("script", ["", "echo No devices were found; exit 6"])
def test_no_gpu_is_no_error(tmp_path, monkeypatch, script):
    nvidia_smi(tmp_path, monkeypatch, script)
    assert NvidiaSmi().gpus() == ()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 9", r"nvidia-smi fails \(exit status 9\)"),
        ("echo NVIDIA-SMI has failed. >&2; exit 9", r"nvidia-smi fails \(NVIDIA-SMI has failed\)"),
        ("echo Something else", r"nvidia-smi lists no GPU \(Something else\)"),
        ("kill $$", "nvidia-smi fails"),
        ("exec sleep 20", "nvidia-smi did not answer in 0 s"),
    ],
)
def test_gpus_that_cannot_be_listed_are_told_of(tmp_path, monkeypatch, script, words):
    nvidia_smi(tmp_path, monkeypatch, script)
    monkeypatch.setattr(gpus, "QUERY_SECONDS", 0.3 if "sleep" in script else 10.0)
    with pytest.raises(GpuQueryError, match=words):
        NvidiaSmi().gpus()
    found = detect_machine()
    assert found.gpus == () and found.note.endswith(", so no GPU is used")
    assert found.note in allot(found, None, None).reason
    with pytest.raises(InputError, match=f"Received: 0. {words}"):
        with_gpus(found, "0")
    assert with_gpus(found, "none").note == ""


def test_gpus_without_cuda_libraries_are_a_note(monkeypatch):
    monkeypatch.setitem(gpus._HAS_CUDA, "jax", lambda: False)
    found = detect_machine("jax", fake_gpus.FakeInventory())
    assert found.gpus == () and "2 GPUs found, but JAX's CUDA build is not" in found.note
    with pytest.raises(InputError, match=r"Received: 0. 2 GPUs found, but .*jax\[cuda12\]"):
        with_gpus(found, "0")
    assert with_gpus(found, "none").note == ""
    monkeypatch.setitem(gpus._HAS_CUDA, "jax", lambda: True)
    assert detect_machine("jax", fake_gpus.FakeInventory()).gpus == TWO


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_backend_has_its_own_cuda_build(backend, tmp_path, monkeypatch):
    """The builds are made up: what their wheels are called, and what lies in them."""
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").touch()
    spec = importlib.util.spec_from_file_location("torch", tmp_path / "torch" / "__init__.py")
    names: list[str] = ["numpy", "jax", "torch", "nvidia-ml-py"]
    monkeypatch.setattr(gpus, "_distributions", lambda: set(names))
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    said = missing_cuda(backend)
    assert TITLES[backend] in said and "pip install -c constraints.txt " in said
    assert " -e " not in said, "the package would bring TensorFlow along"
    if backend == "torch":
        (tmp_path / "torch" / "lib" / "libtorch_cuda.so").touch()
    else:
        names.append("nvidia-cudnn-cu13")  # PyTorch's, of another CUDA.
        assert missing_cuda(backend) != ""
        tensorflow = ["nvidia-cudnn-cu12", "nvidia-cuda-runtime-cu12", "nvidia-cublas-cu12"]
        names += {"tensorflow": tensorflow, "jax": ["jax-cuda12-plugin"]}[backend]
    assert missing_cuda(backend) == ""


def test_tensorflow_finds_cudnn_where_the_loader_looks_first(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "_distributions", lambda: {"tensorflow", "nvidia-cudnn-cu13"})
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    other, folder = tmp_path / "other", tmp_path / "libraries"
    other.mkdir()
    folder.mkdir()
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{tmp_path / 'none'}:{other}:{folder}")
    assert missing_cuda("tensorflow") != ""
    (folder / "libcudnn.so.9").touch()
    assert missing_cuda("tensorflow") == ""


def test_gpus_are_chosen_by_number_in_the_order_given():
    assert chosen_gpus("all", TWO) == TWO
    assert chosen_gpus("none", TWO) == ()
    assert chosen_gpus("1", TWO) == (TWO[1],)
    assert chosen_gpus("1,0", TWO) == (TWO[1], TWO[0])
    with pytest.raises(InputError, match="Received: 2, 7. Choose among: 0, 1."):
        chosen_gpus("0,2,7", TWO)
    with pytest.raises(InputError, match="Received: 0. There is none."):
        chosen_gpus("0", ())


@pytest.mark.parametrize("text", ["", "some", "0,", "0,0", "-1", "0 1", "GPU-aaaa", "²"])
def test_anything_else_is_refused(text):
    with pytest.raises(InputError, match="--gpus must be all, none, or different numbers"):
        check_gpus(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gpus", "half"], "--gpus must be all, none"),
        (["--gpus", "0"], "There is none"),
        (["--trials-per-gpu", "0"], "must be a whole number of at least 1"),
        (["--trials-per-gpu", "few"], "('auto' is possible too)"),
        (["--gpus", "none", "--trials-per-gpu", "2"], "--trials-per-gpu needs a GPU"),
    ],
)
def test_a_wrong_option_is_one_line_before_anything_is_started(
    tmp_path, monkeypatch, capsys, options, words
):
    monkeypatch.setattr(machine, "detect_machine", lambda backend: Machine(2, 2**34))
    monkeypatch.setenv("PATH", str(tmp_path))  # No nvidia-smi, whatever this machine has.
    assert main(["run", "--space", "mlp", "--dataset", "digits", *options]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
    assert not list(tmp_path.rglob("optuna.db")) and not list(tmp_path.rglob("sweep.json"))
