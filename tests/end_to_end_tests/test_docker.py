"""The container files: linted, and what they promise. No engine runs here; `test_stack.py` runs their commands."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from stack import COMPOSE, DOCKER, ROOT

BIN = Path(sys.executable).parent
SCRIPTS = sorted(DOCKER.rglob("*.sh"))


def test_hadolint_has_nothing_to_say():
    files = [DOCKER / "Dockerfile", *DOCKER.rglob("*.Dockerfile")]
    assert len(files) == 2
    done = subprocess.run([BIN / "hadolint", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_compose_file_follows_the_published_schema():
    check = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*check, DOCKER / "compose.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_schema_check_sees_what_is_wrong(tmp_path):
    body = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    body["services"]["mlflow"]["helthcheck"] = {}
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(body))
    check = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*check, tmp_path / "compose.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "helthcheck" in done.stdout


def test_shellcheck_has_nothing_to_say():
    done = subprocess.run(
        [BIN / "shellcheck", *SCRIPTS, ROOT / ".ci" / "run", ROOT / ".ci" / "quick"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert len(SCRIPTS) >= 4


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_is_confined(name):
    service = COMPOSE["services"][name]
    assert service["cap_drop"] == ["ALL"] and service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service and "pids_limit" in service and "restart" in service
    assert not service.get("privileged") and "env_file" not in service
    assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", service["image"]), "an exact version"
    for secret in service["secrets"]:
        assert secret in COMPOSE["secrets"]
    for key, value in service.get("environment", {}).items():
        if re.search("PASSWORD|SECRET|TOKEN|KEY$", key):
            assert value.startswith("/run/secrets/"), key
    files = [v for v in service["environment"].values() if str(v).startswith("/run/secrets/")]
    named = files + [part for part in service.get("command", []) if "/run/secrets/" in part]
    assert {re.search(r"/run/secrets/(\w+)", text)[1] for text in named} == set(service["secrets"])


@pytest.mark.parametrize("name", ["postgres", "mlflow", "optuna-dashboard"])
def test_a_service_that_stays_is_watched(name):
    service = COMPOSE["services"][name]
    assert service["restart"] == "unless-stopped"
    assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])


def test_nothing_is_published_but_to_this_machine():
    ports = {name: service.get("ports", []) for name, service in COMPOSE["services"].items()}
    published = [port for found in ports.values() for port in found]
    assert published and all(port.startswith("127.0.0.1:") for port in published)
    assert not ports["postgres"] and COMPOSE["networks"]["stores"]["internal"] is True
    assert COMPOSE["services"]["postgres"]["networks"] == ["stores"]


def test_the_server_asks_who_it_is_and_the_sweep_has_gpus():
    command = COMPOSE["services"]["mlflow"]["command"]
    assert "--auth" in command and any(part.startswith("--allowed-hosts=") for part in command)
    (device,) = COMPOSE["services"]["sweep"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]
    assert "deploy" not in COMPOSE["services"]["sweep-cpu"]


def test_the_server_may_be_asked_by_the_name_that_the_others_ask_it_by():
    services = COMPOSE["services"]
    options = [o for o in services["mlflow"]["command"] if o.startswith("--allowed-hosts=")]
    allowed = options[0].partition("=")[2].partition("$")[0].split(",")
    asked = {
        re.match(r"http://([^:/]+)", service["environment"]["MLFLOW_TRACKING_URI"])[1]
        for service in services.values()
        if "MLFLOW_TRACKING_URI" in service.get("environment", {})
    }
    assert asked == {"mlflow"} <= set(services) and asked <= set(allowed)
    # Pages elsewhere are named by who starts it, none by default.
    assert (
        "--cors-allowed-origins=${MLFLOW_CORS_ALLOWED_ORIGINS:-}" in services["mlflow"]["command"]
    )


def test_the_images_are_not_roots_and_are_pinned():
    text = (DOCKER / "Dockerfile").read_text()
    for target in ("server", "cpu", "gpu"):
        stage = text.split(f" AS {target}\n")[1].split("\nFROM ")[0]
        assert "\nUSER 10001:10001\n" in stage and f"COPY --from=build-{target} /opt/venv" in stage
    assert re.search(r"PYTHON_IMAGE=python:\d+\.\d+\.\d+-slim-\w+\n", text)
    install = (DOCKER / "install.sh").read_text()
    assert install.count("pip install") == install.count("-c constraints.txt") + 1  # --no-deps


def is_let_in(name: str) -> bool:
    """Whether a file is in the context of a build: the last pattern that fits it decides."""
    found = True
    for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").rstrip("/")
        parts = name.split("/")
        ends = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        if pattern.startswith("**/"):
            fits = any(fnmatch(part, pattern.removeprefix("**/")) for part in parts)
        else:
            fits = any(
                end.count("/") == pattern.count("/") and fnmatch(end, pattern) for end in ends
            )
        if fits:
            found = line.startswith("!")
    return found


def test_the_images_get_every_file_that_is_installed_and_no_other():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setuptools = project["tool"]["setuptools"]
    packages = [text.rstrip("*") for text in setuptools["packages"]["find"]["include"]]
    modules = [f"{name}.py" for name in setuptools["py-modules"]]
    named = [project["project"]["readme"], *project["project"]["license-files"]]
    others = ["pyproject.toml", "constraints.txt", *named]
    out = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = [line for line in out.stdout.splitlines() if (ROOT / line).is_file()]
    folders = (*packages, "docker")
    for name in tracked:
        needed = name.split("/")[0] in folders or name in (*modules, *others)
        needed = needed and not name.startswith(("docker/trial/", "docker/try_stack.py"))
        assert is_let_in(name) == needed, name
    # A package or module at the root that pyproject.toml does not name would be in no wheel.
    beside = {"tests", "docs", "benchmarks", "docker"}
    top = {name.split("/")[0] for name in tracked if name.endswith(".py")} - beside
    assert top == {*packages, *modules}
    assert not is_let_in("docker/secrets/postgres_password")
    assert not is_let_in("sweeps/cli/__pycache__/main.pyc")


def test_every_script_that_the_images_start_is_there():
    others = ("try_stack.py", "Dockerfile.dockerignore")
    files = [path for path in DOCKER.glob("*") if path.is_file() and path.name not in others]
    text = "".join(path.read_text() for path in files)
    named = set(re.findall(r"\b(?:docker|pipelines|sweeps|tracking)/[\w/-]+\.(?:py|sh)\b", text))
    assert {"tracking/server.py", "docker/create_study_tables.py"} <= named
    for name in named:
        assert is_let_in(name) and (ROOT / name).is_file(), name


def with_what_they_require(requirements: list[str]) -> set[str]:
    """Names of distributions: those that are required, and theirs, as far as they are installed."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        for extra in (*requirement.extras, ""):
            key = f"{canonicalize_name(requirement.name)}[{extra}]"
            if key in found:
                continue
            found.add(key)
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                for text in importlib.metadata.requires(requirement.name) or []:
                    further = Requirement(text)
                    if further.marker is None or further.marker.evaluate({"extra": extra}):
                        waiting.append(further)
    return {key.partition("[")[0] for key in found}


def test_the_servers_image_has_every_library_that_its_commands_import():
    """It has neither TensorFlow nor what only sweeps need: see `install.sh server`."""
    text = (DOCKER / "install.sh").read_text()
    light = re.search(r"^light = (\{.*\})$", text, re.MULTILINE)[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        line for line in project["dependencies"] if re.match(r"[\w.-]+", line)[0] in eval(light)
    ]
    installed = with_what_they_require([*wanted, *project["optional-dependencies"]["server"]])
    assert {"mlflow", "filelock"} <= installed and not {"tensorflow", "keras"} & installed
    code = (
        "import contextlib, sys\n"
        "before = set(sys.modules)\n"
        "from sweeps.cli.main import main\n"
        "for command in ('server', 'migrate'):\n"
        "    for options in (['--help'], ['--no-such-option']):\n"
        "        with contextlib.redirect_stdout(None), contextlib.suppress(SystemExit):\n"
        "            main([command, *options])\n"
        "import tracking.mlflow_server.process\n"
        "import tracking.migration.migration\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    owners = importlib.metadata.packages_distributions()
    imported = set(done.stdout.split()) - set(sys.stdlib_module_names)
    assert "sweeps" in imported
    # OpenTelemetry takes it where it is; the kernel that the tests need brings it.
    others = {"pipelines", "search_spaces", "sweeps", "tracking", "psutil"}
    for module in imported & set(owners) - others:
        assert {canonicalize_name(name) for name in owners[module]} & installed, module


def test_secrets_are_made_once_and_only_for_us(tmp_path):
    folder = tmp_path / "secrets"
    make = [DOCKER / "make-secrets.sh", folder]
    subprocess.run(make, check=True, capture_output=True)
    assert folder.stat().st_mode & 0o777 == 0o700
    first = {file.name: file.read_text() for file in folder.iterdir()}
    assert set(first) == set(COMPOSE["secrets"])
    assert len(set(first.values())) == len(first) and all(len(v) == 48 for v in first.values())
    again = subprocess.run(make, check=True, capture_output=True, text=True)
    assert again.stdout == "" and first == {f.name: f.read_text() for f in folder.iterdir()}


def test_a_command_gets_its_secrets_from_files(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("behind the curtain\n")
    run = [DOCKER / "with-secrets.sh", sys.executable, "-c"]
    tell = "import os; print(os.environ['PGPASSWORD'], 'PGPASSWORD_FILE' in os.environ)"
    done = subprocess.run(
        [*run, tell], env={"PATH": "/usr/bin:/bin", "PGPASSWORD_FILE": str(secret)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "behind the curtain False\n"


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ([DOCKER / "with-secrets.sh", "true"], {"PGPASSWORD_FILE": "/no/such/file"}),
        ([DOCKER / "with-secrets.sh"], {}),
        ([DOCKER / "install.sh", "tpu"], {}),
        ([sys.executable, DOCKER / "healthcheck.py"], {}),
        ([sys.executable, DOCKER / "create_study_tables.py"], {}),
        ([DOCKER / "create-databases.sh"], {"MLFLOW_DATABASE_PASSWORD_FILE": "/none", "OPTUNA_DATABASE_PASSWORD_FILE": "/none"}),
    ],
)  # fmt: skip
def test_a_scripts_wrong_input_is_one_line(command, environment):
    done = subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_server_that_is_not_there_is_unhealthy():
    health = [sys.executable, DOCKER / "healthcheck.py", "http://127.0.0.1:9/health"]
    assert subprocess.run(health, capture_output=True, check=False).returncode == 1


def test_the_trial_in_containers_touches_nothing_but_its_own(tmp_path, monkeypatch):
    """`docker/try_stack.py` runs before a release; here is what it would start."""
    monkeypatch.syspath_prepend(DOCKER)
    spec = importlib.util.spec_from_file_location("try_stack", DOCKER / "try_stack.py")
    trial = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(trial)
    stack = trial.Stack("podman", tmp_path)
    services = ("postgres", "mlflow", "study-tables", "optuna-dashboard", "sweep-cpu")
    stack.write_compose_file({name: f"{trial.NAME}-{name}" for name in services})
    body = yaml.safe_load((tmp_path / "compose.yaml").read_text())
    assert set(body["services"]) == set(services) and body["name"] == trial.NAME
    for name, service in body["services"].items():
        assert service["image"].startswith(trial.NAME) and "build" not in service
        assert service["cap_drop"] == ["ALL"] and service["read_only"] is True, "as confined"
        for port in service.get("ports", []):
            host, outside, inside = port.split(":")
            assert host == "127.0.0.1" and outside != inside
        assert service.get("container_name", trial.NAME).startswith(trial.NAME), name
    secrets = {Path(secret["file"]).parent for secret in body["secrets"].values()}
    assert secrets == {tmp_path / "secrets"}, "not those of a stack that is used"
    check = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*check, tmp_path / "compose.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_trial_without_an_engine_is_refused_in_one_line():
    done = subprocess.run(
        [sys.executable, DOCKER / "try_stack.py"], env={"PATH": "/nowhere"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "Docker or podman must be installed, with Compose, and must answer" in done.stderr
