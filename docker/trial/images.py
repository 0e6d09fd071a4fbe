"""The images of the trial: base images, pulled or made of Debian's packages, and the project's."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from trial.engine import LABEL, NAME, ROOT, Engine, StepError

DOCKER = ROOT / "docker"
TARGETS = ("server", "cpu")
GPU = "gpu"
BUILD_SECONDS = 1500


class Images:
    """What each image is called, by its short name: python, postgres, server, cpu."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine, self._folder = engine, folder
        self._pulled: list[str] = []
        self.names: dict[str, str] = {}

    def base(self) -> str:
        """Finds, pulls or makes Python's and PostgreSQL's; says which of them it was."""
        wanted = re.search(r"^ARG PYTHON_IMAGE=(\S+)", (DOCKER / "Dockerfile").read_text(), re.M)
        services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
        assert wanted is not None
        made = {name: f"{NAME}-{name}" for name in ("python", "postgres")}
        if all(self._engine.succeeds("image", "inspect", image) for image in made.values()):
            self.names |= made
            return "made before"
        pulled = {"python": wanted[1], "postgres": services["postgres"]["image"]}
        self.names |= {name: f"docker.io/library/{image}" for name, image in pulled.items()}
        with contextlib.suppress(StepError):
            for image in self.names.values():
                if not self._engine.succeeds("image", "inspect", image):
                    self._engine("pull", image, seconds=600)
                    self._pulled.append(image)
            return f"pulled {len(self._pulled)}" if self._pulled else "there before"
        if self._engine.name == "docker":
            raise StepError(
                "no registry answers, and Docker's builds cannot be given this machine's settings "
                "of pip and apt: without a registry take --engine podman"
            )
        self._make_python()
        file = str(DOCKER / "trial" / "postgres.Dockerfile")
        self._build("postgres", "--file", file, settings=_apt_settings())
        return "no registry: made of Debian's packages"

    def own(self) -> str:
        """Builds the two of the project that need no GPU; says how long each took."""
        return ", ".join(self._target(name) for name in TARGETS)

    def gpu(self) -> str:
        """Builds that for GPUs, whose device is not looked at; says how long, and how large."""
        seconds, image = self._target(GPU), f"{NAME}-{GPU}"
        if "keras-sweeps" not in self._engine("run", "--rm", image, "--help"):
            raise StepError("the image for GPUs does not print its help")
        run = ("run", "--rm", "--entrypoint", "python", image)
        self._engine(*run, "-m", "pip", "check")
        size = int(self._engine("image", "inspect", "--format", "{{.Size}}", image).strip())
        return f"{seconds}, {size / 1e9:.1f} GB; --help and pip check hold"

    def _target(self, name: str) -> str:
        """Builds a target of the Dockerfile."""
        ignored = ["--ignorefile", str(DOCKER / "Dockerfile.dockerignore")]
        ignored = [] if self._engine.name == "docker" else ignored  # It finds the file itself.
        started = time.monotonic()
        file = ["--file", str(DOCKER / "Dockerfile"), "--target", name]
        self._build(name, *ignored, *file, settings=_pip_settings())
        return f"{name} {time.monotonic() - started:.0f} s"

    def remove(self) -> None:
        """Those that were made or pulled, and what stages of a build left without a name."""
        for name in (*TARGETS, GPU, "postgres", "python"):
            self._engine("rmi", "-f", f"{NAME}-{name}", check=False)
        ours = ("--filter", "dangling=true", "--filter", f"label={LABEL}={NAME}")
        for image in sorted(set(self._engine("images", "-q", *ours, check=False).split())):
            self._engine("rmi", "-f", image, check=False)
        for image in self._pulled:  # Without force: somebody may use it by now.
            self._engine("rmi", image, check=False)

    def _make_python(self) -> None:
        if os.geteuid() != 0 or shutil.which("debootstrap") is None:
            raise StepError("no registry answers; without one, root and debootstrap are needed")
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            root = Path(scratch) / "root"
            packages = "--include=python3,python3-venv,ca-certificates"
            self._engine.run(
                "debootstrap", "--variant=minbase", packages, "bookworm", str(root),
                *_debian_mirror(), seconds=900,
            )  # fmt: skip
            (root / "usr" / "bin" / "python").symlink_to("python3")
            archive = str(Path(scratch) / "root.tar")
            self._engine.run("tar", "-C", str(root), "-cf", archive, ".")
            self._engine("import", archive, f"{NAME}-python")
        self.names["python"] = f"{NAME}-python"

    def _build(self, name: str, *arguments: str, settings: list[str]) -> None:
        volumes = [part for path in settings for part in ("-v", f"{path}:{path}:ro")]
        if self._engine.name == "docker":
            volumes = []  # Its `build` takes none; it has a network instead.
        self._engine(
            "build", "--network", "host", *volumes, "--build-arg",
            f"PYTHON_IMAGE={self.names['python']}", "--build-arg", f"TRIAL={NAME}",
            "--tag", f"{NAME}-{name}", *arguments, str(ROOT), seconds=BUILD_SECONDS,
        )  # fmt: skip
        self.names[name] = f"{NAME}-{name}"


def _debian_mirror() -> list[str]:
    """The mirror that this machine uses, where it tells; debootstrap knows one itself."""
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        found = re.search(r"^URIs: (\S+)", path.read_text(), re.M)
        if found:
            return [found[1]]
    return []


def _apt_settings() -> list[str]:
    """Sources, proxies and certificates of this machine's apt, for a build without a registry."""
    places = ("/etc/apt/sources.list.d/debian.sources", "/etc/ssl/certs/ca-certificates.crt")
    more = sorted(str(path) for path in Path("/etc/apt/apt.conf.d").glob("*proxy*"))
    return [path for path in (*places, *more) if Path(path).exists()]


def _pip_settings() -> list[str]:
    """This machine's settings of pip, and the files and folders that they name."""
    listed = [sys.executable, "-m", "pip", "config"]
    known = subprocess.run([*listed, "debug"], capture_output=True, text=True, check=False).stdout
    paths = re.findall(r"(/\S+), exists: True", known)
    values = subprocess.run([*listed, "list"], capture_output=True, text=True, check=False).stdout
    for word in re.findall(r"(?:file://)?(/[^\s']+)", values):
        # The pages of an index in a folder, `simple`, name files beside it.
        path = Path(word).parent if Path(word).name == "simple" else Path(word)
        if path.exists():
            paths.append(str(path))
    return sorted(set(paths))
