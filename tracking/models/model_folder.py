"""Writes an MLflow model folder around a `.keras` file, without importing Keras.

The folder is what `mlflow.keras.save_model` writes, so `mlflow.keras.load_model`, `mlflow.pyfunc`
and `mlflow models serve` take it; a test loads it with all of them. There is no pickle in it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types.schema import Schema, TensorSpec

from tracking.models.model_store import KERAS_FILE
from tracking.tags import Tag

_REFUSED = re.compile(r"[/:.%\"']")
"""MLflow's rule for names of logged models."""
REQUIRED = ("mlflow", "keras", "numpy")
BACKENDS_REQUIRED = ("tensorflow", "jax", "torch")
"""Of these TensorFlow, where it is installed: Keras takes it unless it is told, and the file fits
each; and what the model was trained on."""


def model_name(tags: Mapping[str, str]) -> str:
    """What a logged model is called: `nightly-trial-3`, `nightly-winner-trial-3`.

    Args:
        tags: those of the model.
    """
    if not {Tag.SWEEP, Tag.TRIAL} <= tags.keys():
        return "model"
    trial = f"winner-trial-{tags[Tag.FINALIST_OF]}" if Tag.FINALIST_OF in tags else None
    return _REFUSED.sub("-", f"{tags[Tag.SWEEP]}-{trial or f'trial-{tags[Tag.TRIAL]}'}")


def write_model_folder(
    folder: Path,
    keras_file: Path,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    run_id: str,
    model_id: str,
    backend: str = "tensorflow",
) -> None:
    """Writes the folder: `MLmodel`, `data/model.keras` and the environment.

    The signature takes pixels 0 to 255 as uint8 (n, height, width, channels) and returns
    probabilities as float32 (n, classes).

    Args:
        backend: what Keras ran on; one that is not installed here is not required there.
    """
    data = (folder / KERAS_FILE).parent
    data.mkdir(parents=True)
    (data / "keras_module.txt").write_text("keras")
    shutil.copyfile(keras_file, folder / KERAS_FILE)

    model = Model(run_id=run_id, model_id=model_id, artifact_path="model")
    model.signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *input_shape))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, num_classes))]),
    )
    model.add_flavor(
        "keras",
        data=data.name,
        keras_version=importlib.metadata.version("keras"),
        keras_backend=backend,
        save_exported_model=False,
    )
    pyfunc.add_to_model(
        model,
        loader_module="mlflow.keras",
        conda_env="conda.yaml",
        python_env="python_env.yaml",
    )
    model.model_size_bytes = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    model.save(str(folder / MLMODEL_FILE_NAME))
    _write_environment(folder, backend)


def _write_environment(folder: Path, backend: str) -> None:
    # Without the local part of a version: `2.13.0+cpu` is a build that no index has under it.
    names = [*REQUIRED, *(name for name in BACKENDS_REQUIRED if name in ("tensorflow", backend))]
    requirements = [
        f"{name}=={importlib.metadata.version(name).partition('+')[0]}"
        for name in names
        if name in REQUIRED or importlib.util.find_spec(name) is not None
    ]
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
    python = platform.python_version()
    # JSON is YAML, and needs no further library.
    python_env = {
        "python": python,
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }
    (folder / "python_env.yaml").write_text(json.dumps(python_env, indent=1))
    conda_env = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
    }
    (folder / "conda.yaml").write_text(json.dumps(conda_env, indent=1))
