"""With what a model is trained: Keras' backend, the precision of its numbers, and compilation.

Nothing here imports a backend: the driver asks, too.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Literal

from pipelines.runtime.keras_file import check_keras_file
from search_spaces.errors import InputError, unknown_name

Backend = Literal["tensorflow", "jax", "torch"]
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
Jit = Literal["auto", "on", "off"]
BACKENDS: tuple[Backend, ...] = ("tensorflow", "jax", "torch")
PRECISIONS: tuple[Precision, ...] = ("float32", "mixed_bfloat16", "mixed_float16")
AUTO = "auto"
BACKEND_VARIABLE = "KERAS_BACKEND"
TITLES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
LIBRARIES = {"tensorflow": ("tensorflow",), "jax": ("jax", "jaxlib"), "torch": ("torch",)}
"""The distributions whose versions a backend's numbers follow from."""


@dataclass(frozen=True)
class Compute:
    """How numbers are computed; all of it is recorded, because trained numbers follow from it.

    Attributes:
        precision: Keras' dtype policy; weights are float32 in each.
        jit: whether training steps are compiled (XLA, or `torch.compile`); `auto` is Keras' rule.
    """

    backend: str = "tensorflow"
    precision: str = "float32"
    jit: str = AUTO

    @property
    def title(self) -> str:
        """The backend as people write it."""
        return TITLES[self.backend]

    @property
    def text(self) -> str:
        """As people read it."""
        return f"{self.title}, {self.precision}, jit {self.jit}"


DEFAULT_COMPUTE = Compute()
"""That of before there was a choice."""


def check_backend(name: str) -> None:
    """Raises InputError for a backend that Keras does not have, or cannot be imported with."""
    if name not in BACKENDS:
        raise unknown_name("backend", name, BACKENDS)
    there = installed_backends()
    if name not in there:
        others = f" Or choose what is installed: --backend {there[0]}." if there else ""
        raise InputError(
            f"A backend must be installed. Received: {name}, which is not. Install {TITLES[name]}: "
            f"pip install -c constraints.txt {name} in the clone.{others}"
        )
    check_keras_file()


def installed_backends() -> list[Backend]:
    """Those that could be imported here; none is imported for that."""
    return [name for name in BACKENDS if importlib.util.find_spec(name) is not None]


def check_compute(backend: str, precision: str, jit: str) -> None:
    """Raises InputError for the first of the three that cannot be.

    Args:
        precision, jit: may be `auto`.
    """
    check_backend(backend)
    if precision not in (*PRECISIONS, AUTO):
        raise unknown_name("precision", precision, (*PRECISIONS, AUTO))
    if jit not in (AUTO, "on", "off"):
        raise unknown_name("jit", jit, (AUTO, "on", "off"))


def jit_rule(backend: str, *, on_gpu: bool) -> Literal["on", "off"]:
    """Keras' own rule for `jit_compile="auto"`.

    On cores XLA makes TensorFlow's convolutions three to four times slower (docs/log.md); JAX is
    hardly usable without it; PyTorch runs eagerly.
    """
    if backend == "tensorflow":
        return "on" if on_gpu else "off"
    return "on" if backend == "jax" else "off"


def choose_backend(name: str, environment: MutableMapping[str, str] | None = None) -> None:
    """Says to Keras, where it is imported from now on with this environment, what it runs on.

    Raises:
        InputError: There is no such backend here.
    """
    check_backend(name)
    variables = os.environ if environment is None else environment
    variables[BACKEND_VARIABLE] = name
    # Threads of OpenMP spin while they wait, by default: with two trials on two cores, or another
    # program beside, PyTorch was ten times slower (docs/backends.md). Read when it is loaded.
    variables.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # PyTorch asks NVML for GPUs instead of CUDA, which no fork survives once it was asked.
    variables.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    # `torch.compile` starts a pool of processes otherwise, and a forked worker waited for it.
    variables.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
