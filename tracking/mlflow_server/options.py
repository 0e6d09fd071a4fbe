"""What a server is to be, checked before anything is started."""

from __future__ import annotations

import argparse
import errno
import importlib.util
import ipaddress
import os
import re
import secrets
import shlex
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import InputError, shortened, shown
from search_spaces.files import UnusableFileError, named_path, read_text
from tracking.addresses import check_readable, holds_password, redacted
from tracking.stores import DATABASES, MLFLOW_TABLES, check_database, check_owner

MIN_PASSWORD_CHARACTERS = 12
"""MLflow refuses shorter ones."""
MAX_PASSWORD_BYTES = 4_096
LOOPBACK, UI_PORT = "127.0.0.1", 5000
CONTAINER_SECRETS = Path("/run/secrets")
"""Where Docker, podman and Kubernetes mount secrets, with a mode of the host's users."""
AUTH_DATABASE_URI = "sqlite:///mlflow-auth.db"
_BUCKETS = {
    "s3": ("boto3", "boto3"),
    "r2": ("boto3", "boto3"),
    "gs": ("google.cloud.storage", "google-cloud-storage"),
    "wasbs": ("azure.storage.blob", "azure-storage-blob"),
    "abfss": ("azure.storage.filedatalake", "azure-storage-file-datalake"),
}
"""Scheme -> the module that MLflow needs for it, and what installs that."""
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BUCKET = re.compile(r"[a-z][a-z0-9+.-]+://.+")


@dataclass(frozen=True)
class ServerPlan:
    """A server that can be started.

    Attributes:
        artifacts: an absolute folder, or the address of a bucket.
        users: names of those who may track, each with the file of their password.
        allowed_hosts: what a request's Host header may be, exactly.
        allowed_origins: origins of foreign pages that may change something.
    """

    store_uri: str
    artifacts: str
    host: str
    port: int
    num_workers: int
    auth: bool
    admin_password_file: Path
    users: tuple[tuple[str, Path], ...]
    auth_database_uri: str
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]

    @property
    def address(self) -> str:
        """Where this machine reaches the server."""
        # One that listens everywhere listens on loopback, too.
        every = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
        host = every.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def server_plan(arguments: argparse.Namespace) -> ServerPlan:
    """The plan that parsed options mean.

    Raises:
        InputError: Something cannot be used; nothing was started or written.
    """
    store, auth_store = arguments.backend_store_uri, arguments.auth_database_uri
    _check_together(arguments)
    check_database_address(store, "--backend-store-uri")
    if arguments.auth and auth_store is None:
        auth_store = AUTH_DATABASE_URI if store.startswith("sqlite") else store
    check_owner(store, "--backend-store-uri", MLFLOW_TABLES)
    if auth_store is not None:
        check_database_address(auth_store, "--auth-database-uri")
        check_owner(auth_store, "--auth-database-uri", MLFLOW_TABLES)
    plan = ServerPlan(
        store_uri=store,
        artifacts=_artifacts(arguments.artifacts_destination),
        host=arguments.host,
        port=arguments.port,
        num_workers=arguments.workers,
        auth=arguments.auth,
        admin_password_file=Path(arguments.admin_password_file),
        users=tuple(_user(text) for text in arguments.user),
        auth_database_uri=auth_store or "",
        allowed_hosts=_allowed_hosts(arguments),
        allowed_origins=_origins(arguments.cors_allowed_origins),
    )
    _check_port(plan.host, plan.port)
    if plan.auth:
        files = [plan.admin_password_file, *(file for _, file in plan.users)]
        _check_distinct("a name", [name for name, _ in plan.users])
        _check_distinct("a password file", [str(file.absolute()) for file in files])
        for file in files:
            _check_password_file(file)
    _make_folder(plan.artifacts)
    return plan


def ui_plan(store_uri: str, port: int | None) -> ServerPlan:
    """A server on loopback that shows a database to the person at this machine.

    Args:
        port: None for 5000, or another one where that is in use.

    Raises:
        InputError: The database cannot be reached, or the port is in use.
    """
    check_database(store_uri, "--tracking-uri")
    check_owner(store_uri, "--tracking-uri", MLFLOW_TABLES)
    if port is None:
        port = free_port(UI_PORT)
    else:
        _check_port(LOOPBACK, port)
    names = ("localhost", LOOPBACK)
    return ServerPlan(
        store_uri=store_uri,
        artifacts=_artifacts("mlartifacts"),
        host=LOOPBACK,
        port=port,
        num_workers=1,
        auth=False,
        admin_password_file=Path(),
        users=(),
        auth_database_uri="",
        allowed_hosts=(*names, *(f"{name}:{port}" for name in names)),
        allowed_origins=(),
    )


def free_port(first: int) -> int:
    """That port of loopback, or where it is in use one that nobody uses."""
    try:
        _check_port(LOOPBACK, first)
    except InputError:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((LOOPBACK, 0))
            return int(probe.getsockname()[1])
    return first


def _check_distinct(what: str, values: list[str]) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise InputError(
            f"Every user must have {what} of their own. Received: {twice[0]} more than once. "
            "Give each --user another one."
        )


def port_number(text: str) -> int:
    """A port that a program may listen at."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"must be a port from 1 to 65535. Received: {shown(text)}")
    return int(text)


def password_in(file: Path) -> str:
    """The password that a file holds; made up, readable by its owner alone, where it is missing.

    Raises:
        InputError: It cannot be read or written, or is too short.
    """
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        _check_password_file(file)
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise _bad_password_file(file, error.strerror or str(error)) from error
    password = secrets.token_urlsafe(24)
    with os.fdopen(descriptor, "w") as out:
        out.write(f"{password}\n")
    return password


def check_database_address(uri: str, option: str) -> None:
    """Raises InputError unless it is a database that can be reached, without a password in it."""
    check_readable(uri, option)
    if uri.partition(":")[0].partition("+")[0] not in DATABASES:
        raise InputError(
            f"{option} must be a database, such as sqlite:///mlflow.db or "
            f"postgresql+psycopg://mlflow@localhost/mlflow. Received: {redacted(uri)}."
        )
    if holds_password(uri):
        raise InputError(
            f"{option} must not hold a password: the list of processes shows it to everybody. "
            f"Received: {redacted(uri)}. Leave it out, and put it into PGPASSFILE or PGPASSWORD."
        )
    check_database(uri, option)


def _check_together(arguments: argparse.Namespace) -> None:
    if not arguments.auth and (arguments.user or arguments.auth_database_uri):
        option = "--user" if arguments.user else "--auth-database-uri"
        raise InputError(f"{option} needs --auth. Add --auth, or leave {option} out.")
    if arguments.auth and importlib.util.find_spec("flask_wtf") is None:
        raise InputError(
            "--auth needs Flask-WTF, which is not installed. In the clone: "
            "pip install -c constraints.txt -e '.[server]'"
        )
    if arguments.workers > 1 and importlib.util.find_spec("uvloop") is None:
        raise InputError(
            f"--workers above 1 needs uvloop, without which each request waits 45 ms. Received: "
            f"{arguments.workers}. In the clone: pip install -c constraints.txt -e '.[server]'"
        )
    if _is_loopback(arguments.host):
        return
    names = _listed(arguments.allowed_hosts)
    for option, given in (("--auth", arguments.auth), ("--allowed-hosts", names)):
        if not given:
            raise InputError(
                f"A server that other machines can reach needs {option}. Received: --host "
                f"{arguments.host} without it. Add {option}, or leave --host out."
            )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # Of a package that it would be in.
        return False


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise InputError(
            f"--host must be an address of this machine, such as 127.0.0.1 or 0.0.0.0. Received: "
            f"{shown(host)}. A name goes into --allowed-hosts."
        ) from None


def _allowed_hosts(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Names with and without the port, since MLflow compares the whole header.

    Its own default also takes whatever begins like a private address (`10.evil.example`).
    """
    names = ["localhost", "127.0.0.1", "[::1]"]
    if arguments.host not in ("0.0.0.0", "::"):  # noqa: S104
        names.append(f"[{arguments.host}]" if ":" in arguments.host else arguments.host)
    for name in _listed(arguments.allowed_hosts):
        if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9a-fA-F:]+\](:\d+)?", name):
            raise InputError(
                "--allowed-hosts must be names or addresses with commas between, without "
                f"wildcards. Received: '{name}'. Try --allowed-hosts mlflow.example.org."
            )
        names.append(name)
    with_port = [name if re.search(r":\d+$", name) else f"{name}:{arguments.port}"
                 for name in names]  # fmt: skip
    return tuple(dict.fromkeys(names + with_port))


def _origins(text: str | None) -> tuple[str, ...]:
    origins = _listed(text)
    for origin in origins:
        if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+", origin):
            raise InputError(
                "--cors-allowed-origins must be origins such as https://example.org, with commas "
                f"between, without wildcards. Received: '{origin}'."
            )
    return tuple(origins)


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()] if text else []


def _user(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not (equals and file and _USER.fullmatch(name)) or name == "admin":
        raise InputError(
            "--user must be a name of letters, digits, dots and dashes, and the file of its "
            f"password. Received: '{text}'. Try --user sweeper=sweeper.password."
        )
    return name, Path(file)


def _artifacts(destination: str) -> str:
    rule = "--artifacts-destination must be a folder, or a bucket that MLflow knows."
    if not destination.strip():
        raise InputError(f"{rule} Received: '{destination}'. Leave it out for mlartifacts here.")
    if _BUCKET.fullmatch(destination) and not destination.startswith("file:"):
        scheme = destination.partition(":")[0]
        if scheme not in _BUCKETS:
            raise InputError(
                f"{rule} Received: {redacted(destination)}. Choose among: "
                f"{', '.join(f'{name}://' for name in _BUCKETS)}."
            )
        module, package = _BUCKETS[scheme]
        if not _is_installed(module):
            raise InputError(
                f"{rule} Received: {redacted(destination)}, for which '{package}' is not "
                f"installed: pip install {package}"
            )
        return destination
    try:
        return str(named_path(destination.removeprefix("file://")).absolute())
    except UnusableFileError as error:
        raise InputError(f"{rule} Received: {shown(destination)}, but {error}.") from None


def _make_folder(artifacts: str) -> None:
    """Makes the folder of files, if it is one: that it can be made is known only afterwards."""
    if not artifacts.startswith("/"):
        return
    try:
        Path(artifacts).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=artifacts):
            pass
    except OSError as error:
        raise InputError(
            "--artifacts-destination must be a folder that can be written. Received: "
            f"{artifacts} ({error.strerror or error}). Choose another one."
        ) from error


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else error.strerror
            raise InputError(
                f"--host and --port must be an address to listen at. Received: {host} port "
                f"{port}, which {reason}. Choose another --port."
            ) from error


def _check_password_file(file: Path) -> None:
    """Raises InputError for a file with no fit password; one that is missing can be made."""
    try:
        password = read_text(named_path(file), MAX_PASSWORD_BYTES).strip()
    except FileNotFoundError:
        if not os.access(file.absolute().parent, os.W_OK):
            raise _bad_password_file(file, "missing, and its folder cannot be written") from None
        return
    except UnusableFileError as error:
        raise _bad_password_file(file, str(error)) from None
    _check_private(file)
    if len(password) < MIN_PASSWORD_CHARACTERS:
        raise _bad_password_file(file, f"it holds {len(password)} characters")
    if len(password.splitlines()) > 1:
        raise _bad_password_file(file, "it holds several lines")


def _check_private(file: Path) -> None:
    """Raises InputError for a file that other users of the machine can read or change.

    A folder that they cannot enter keeps it, too; in a container others are other containers.
    """
    try:
        path = file.resolve()
        mode = path.stat().st_mode
        kept = any(not parent.stat().st_mode & 0o011 for parent in path.parents)
    except OSError:
        return  # Reading it says why.
    if mode & 0o066 and not kept and not path.is_relative_to(CONTAINER_SECRETS):
        raise InputError(
            "A password file must be its owner's alone. Received: "
            f"{file}, which others can read or change (mode {mode & 0o777:o}). Change that: "
            f"chmod 600 {shlex.quote(str(file))}"
        )


def _bad_password_file(file: Path, reason: str) -> InputError:
    return InputError(
        f"A password file must hold one line of at least {MIN_PASSWORD_CHARACTERS} characters. "
        f"Received: {shortened(str(file))} ({reason}). Remove it, and a password is made up."
    )
