"""What a backend is told of its GPU; what only a GPU could show is told to stand-ins here."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from pipelines.objectives import OBJECTIVES
from pipelines.runtime.device import MemoryShare, device_environment, take_share
from pipelines.training.options import TrainingOptions
from pipelines.training.trial import Decision, Schedule, TrialTask
from search_spaces.registry import get_space
from sweeps.executors.base import Reported, Returned, Slot
from sweeps.executors.processes import ProcessExecutor
from sweeps.workers.jobs import train_job, warm_up

HALF = MemoryShare(0.45, 60 * 2**30)
VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "TF_FORCE_GPU_ALLOW_GROWTH",
    "XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION",
)  # fmt: skip


@pytest.fixture
def environment(monkeypatch):
    """Gives the variables back as they were."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "before")
        monkeypatch.delenv(name)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_process_sees_its_gpu_alone_or_none(backend):
    for gpu, value in (("1", "1"), (None, "-1")):
        found = device_environment(backend, gpu)
        assert found["CUDA_VISIBLE_DEVICES"] == value
        assert found["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_memory_grows_or_is_not_taken_in_advance():
    assert device_environment("tensorflow", "0")["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    alone = device_environment("jax", "0")
    assert alone["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert alone["XLA_CLIENT_MEM_FRACTION"] == "0.9500"
    assert device_environment("jax", "0", HALF)["XLA_CLIENT_MEM_FRACTION"] == "0.4500"
    assert set(device_environment("torch", "0", HALF)) == set(VARIABLES[:2])


class FakeTensorFlow:
    """`tf.config` of a process that sees some GPUs; it refuses what TensorFlow refuses."""

    def __init__(self, *devices: str) -> None:
        self.limits: dict[str, list[Any]] = {}
        self.grows: set[str] = set()
        self.config = self.experimental = self
        self._devices = list(devices)

    def list_physical_devices(self, kind: str) -> list[str]:
        assert kind == "GPU"
        return self._devices

    def LogicalDeviceConfiguration(self, memory_limit: int) -> int:
        return memory_limit

    def set_memory_growth(self, device: str, enable: bool) -> None:
        if device in self.limits:
            raise ValueError("Cannot set memory growth on device when virtual devices configured")
        assert enable
        self.grows.add(device)

    def set_logical_device_configuration(self, device: str, limits: list[Any]) -> None:
        self.limits[device] = limits


@pytest.fixture
def use(monkeypatch, environment):
    """Makes a stand-in the library of a backend that Keras says it uses."""

    def with_backend(backend: str, library: Any) -> None:
        import keras

        monkeypatch.setattr(keras.config, "backend", lambda: backend)
        monkeypatch.setitem(sys.modules, backend, library)

    return with_backend


def test_tensorflow_is_limited_in_mebibytes_where_the_gpu_is_shared(use):
    tf = FakeTensorFlow("gpu")
    use("tensorflow", tf)
    take_share("0", HALF)
    take_share("0", HALF)  # A warm process is told twice.
    assert tf.limits == {"gpu": [60 * 1024]} and tf.grows == set()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


@pytest.mark.parametrize("memory", [None, MemoryShare(0.45)])
def test_tensorflow_grows_where_it_is_alone_or_the_size_is_unknown(use, memory):
    tf = FakeTensorFlow("gpu")
    use("tensorflow", tf)
    take_share("0", memory)
    assert tf.grows == {"gpu"} and tf.limits == {}


def test_torch_is_limited_by_a_fraction(use):
    told = []
    cuda = types.SimpleNamespace(set_per_process_memory_fraction=lambda *how: told.append(how))
    use("torch", types.SimpleNamespace(cuda=cuda))
    take_share("0", None)
    take_share(None, None)
    assert told == []
    take_share("0", HALF)
    assert told == [(0.45, 0)]


def test_jax_is_limited_by_the_one_name_that_it_takes(use, monkeypatch):
    use("jax", types.SimpleNamespace())
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".9")
    take_share("1", HALF)
    assert os.environ["XLA_CLIENT_MEM_FRACTION"] == "0.4500"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ


def test_the_fake_refuses_as_tensorflow_does():
    """The rule that `_limit_tensorflow` must mind, asked of TensorFlow's own code."""
    import inspect

    from tensorflow.python.eager.context import Context

    text = inspect.getsource(Context.set_memory_growth)
    assert "Cannot set memory growth on device when virtual devices configured" in text
    tf = FakeTensorFlow("gpu")
    tf.set_logical_device_configuration("gpu", [1])
    with pytest.raises(ValueError, match="Cannot set memory growth"):
        tf.set_memory_growth("gpu", True)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The real server of workers, with the real warm-up: on cores, as far as that goes."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    executor = ProcessExecutor("sweeps.workers.preload", log, warm_up=warm_up)
    yield executor
    executor.close()


def trained(server: ProcessExecutor, data: Any, folder: Path, slot: Slot) -> Any:
    """The reports and the process of a trial with dropout, which draws random numbers."""
    folder.mkdir()
    space = get_space("mlp")
    params = space.complete({"dropout": 0.3})
    task = TrialTask(
        0,
        "mlp",
        params,
        data,
        Schedule(2),
        7,
        OBJECTIVES["val_accuracy"],
        str(folder),
        TrainingOptions(deterministic=True),
    )
    server.start("trial", train_job, task, slot, str(folder / "log"))
    reports, process = [], server.process_id("trial")
    while True:
        for event in server.events(1.0):
            if isinstance(event, Reported):
                reports.append(
                    {k: v for k, v in event.message.metrics.items() if "second" not in k}
                )
                server.answer("trial", Decision.GO_ON)
            else:
                assert isinstance(event, Returned), event
                return reports, process, event.value.device


def test_a_trial_in_a_warm_process_is_the_same_bit_for_bit(server, tiny_data, tmp_path):
    slot = Slot(0, 1)
    cold, _, device = trained(server, tiny_data, tmp_path / "cold", slot)
    server.keep_warm([slot])
    (waiting,) = server._spares.process_ids
    warm, process, same_device = trained(server, tiny_data, tmp_path / "warm", slot)
    assert process == waiting
    assert len(cold) == 2 and cold == warm
    assert device == same_device == "cpu, 1 thread"
