"""What `pip install` brings: every module and nothing else, and commands that work without a clone."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("search_spaces", "pipelines", "tracking", "sweeps")
HEAVY = {"tensorflow", "keras", "keras_tuner", "mlflow", "optuna", "numpy", "pandas", "sklearn"}
TINY = (
    "--space", "cnn", "--dataset", "digits", "--trials", "2", "--epochs", "1", "--no-baselines",
    "--workers", "1", "--timeout", "none", "--keep-models", "0", "--name", "s", "--fix",
    "num_blocks=1", "--fix", "filters=8", "--fix", "dense_units=0",
)  # fmt: skip


def without_clone() -> dict[str, str]:
    """The environment, without what would lead to this clone or to somebody's stores."""
    hidden = ("PYTHONPATH", "SWEEPS_DATA_DIR", "MLFLOW_TRACKING_URI", "SWEEPS_STORAGE")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=without_clone(), capture_output=True, text=True, timeout=280
    )


def tracked_files() -> list[str]:
    out = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in out.stdout.splitlines() if (ROOT / line).is_file()]


def can_build_here() -> bool:
    """Whether the build needs nothing from an index."""
    if importlib.util.find_spec("setuptools") is None:
        return False
    version = tuple(int(n) for n in importlib.metadata.version("setuptools").split(".")[:3])
    return version >= (77, 0, 3)  # As pyproject.toml says; it makes wheels by itself.


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the tracked files: a `build` folder of the clone would get into it."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked_files():
        copy = folder / "clone" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy)
    isolation = ["--no-build-isolation"] if can_build_here() else []
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        *isolation,
        "-w",
        "built",
        "./clone",
    ]
    done = run(build, folder)
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "built").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """Another environment, with the wheel installed and this one's libraries within its reach."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    done = run([*install, "--no-index", str(wheel)], folder)
    assert done.returncode == 0, done.stderr
    # A folder that a .pth file names comes last, and its own .pth files (an editable install of
    # this project is one) are not followed.
    (found,) = (folder / "lib").glob("python*/site-packages")
    (found / "libraries.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python


def test_the_wheel_holds_every_module_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    tracked = {name for name in tracked_files() if name.split("/")[0] in PACKAGES}
    assert names == tracked | {"keras_sweeps.py"}
    assert len(names) > 200


def test_the_wheel_has_the_license(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith("/LICENSE")]
        (metadata,) = [name for name in file.namelist() if name.endswith("/METADATA")]
        assert file.read(name) == (ROOT / "LICENSE").read_bytes()
        assert "License-Expression: Apache-2.0\n" in file.read(metadata).decode()


def test_every_folder_with_modules_is_a_package():
    for name in tracked_files():
        path = ROOT / name
        if path.suffix == ".py" and name.split("/")[0] in PACKAGES:
            assert (path.parent / "__init__.py").is_file(), name


def test_what_is_installed_is_the_wheel_and_not_the_clone(python, tmp_path):
    code = (
        "import keras_sweeps, pipelines, search_spaces, sweeps, tracking\n"
        "for module in (keras_sweeps, pipelines, search_spaces, sweeps, tracking):\n"
        "    print(module.__file__)\n"
        "print(keras_sweeps.__version__)\n"
    )
    done = run([str(python), "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    *files, version = done.stdout.splitlines()
    assert len(files) == 5
    for file in files:
        assert Path(file).is_relative_to(python.parents[1]), file
    assert version == importlib.metadata.version("keras-sweeps")


@pytest.mark.long
def test_a_sweep_runs_from_the_wheel_in_another_folder(python, tmp_path):
    command = str(python.with_name("keras-sweeps"))
    done = run([command, "run", *TINY], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[2 of 2 trials done" in done.stdout and "Best: trial " in done.stdout
    assert (tmp_path / "mlflow.db").is_file()
    checked = run([command, "doctor", "s"], tmp_path)
    assert checked.returncode == 0, checked.stdout
    assert "study, spool and MLflow agree" in checked.stdout


def test_importing_the_public_name_imports_nothing_heavy(tmp_path):
    code = (
        "import json, sys\n"
        "before = set(sys.modules)\n"
        "import keras_sweeps\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))\n"
        "print(keras_sweeps.__version__)\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    environment = {**without_clone(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    modules, version, heavy = done.stdout.splitlines()
    assert set(json.loads(modules)) <= {"keras_sweeps", "__future__"}, modules
    assert version == importlib.metadata.version("keras-sweeps")
    assert heavy == "[]"
