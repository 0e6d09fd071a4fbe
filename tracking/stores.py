"""Which MLflow store is meant, and whether it can be reached, asked without importing MLflow."""

from __future__ import annotations

import configparser
import contextlib
import importlib.util
import os
import re
import shlex
import sqlite3
import tempfile
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from search_spaces.errors import InputError, shown
from search_spaces.files import UnusableFileError, check_regular, named_path
from tracking.addresses import check_readable, encoded, redacted

DEFAULT_URI = "sqlite:///mlflow.db"
EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
EXPERIMENT_ID_VARIABLE = "MLFLOW_EXPERIMENT_ID"
DEFAULT_UI = "http://127.0.0.1:5000"
PUBLIC_URL_VARIABLE = "SWEEPS_PUBLIC_URL"
CHECK_SECONDS = 4.0
"""Allowed twice, to connect and to answer; together less than ten seconds."""
OPTUNA_TABLES, MLFLOW_TABLES = {"studies", "trials"}, {"experiments", "runs"}
"""By which a database is known to be Optuna's or MLflow's."""
SCHEMAS = {
    "mlflow": {
        "alembic_version": "store/db_migrations",
        "alembic_version_auth": "server/auth/db/migrations",
    },
    "optuna": {"alembic_version": "storages/_rdb/alembic"},
}
"""Library -> table of the version of its tables -> folder in it that has one file per version."""
_REVISION = re.compile(r"""^revision(?:: str)? *= *["']([^"']+)["']""", re.MULTILINE)
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SQLITE_SCHEMES = ("sqlite", "sqlite+pysqlite")
SQLITE_OPTIONS = frozenset({
    "timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements", "uri",
    "mode", "cache", "immutable", "vfs", "nolock", "psow",
})  # fmt: skip
"""Those of Python's sqlite3 and of SQLite's own addresses."""
SQLITE_HEADER = b"SQLite format 3\x00"


def resolve_uri(given: str | None) -> str:
    """The tracking store: as given, else `MLFLOW_TRACKING_URI`, else the local store here."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def resolve_experiment(given: str | None) -> str | None:
    """The experiment of a new sweep: as given, else `MLFLOW_EXPERIMENT_NAME`; None for neither."""
    return given or os.environ.get(EXPERIMENT_VARIABLE) or None


def artifact_location(folder: Path) -> str:
    """A folder's path as MLflow takes it: as an address where it would read letters otherwise."""
    return folder.as_uri() if any(letter in str(folder) for letter in "%?#") else str(folder)


def is_server(uri: str) -> bool:
    """Whether an address is that of a tracking server, not of a database."""
    return uri.startswith(("http://", "https://"))


def check_store(uri: str, option: str = "--tracking-uri") -> None:
    """Fails within ten seconds where a tracking store cannot be used; writes nothing.

    Raises:
        InputError: The server does not answer, or the file is no database or not writable.
    """
    check_readable(uri, option)
    scheme = uri.partition(":")[0]
    if scheme in ("http", "https"):
        _check_server(uri, option)
    elif scheme.partition("+")[0] in DATABASES:
        check_database(uri, option)
        check_owner(uri, option, MLFLOW_TABLES)
    else:
        raise InputError(
            f"{option} must be a database or a server; MLflow no longer writes plain "
            f"folders. Received: {redacted(uri)}. Try sqlite:///mlflow.db or http://127.0.0.1:5000."
        )


def check_existing_store(uri: str, option: str = "--tracking-uri") -> None:
    """As `check_store`, for a command that only reads: MLflow would make what is not there.

    Raises:
        InputError: The store cannot be used, or holds no MLflow runs yet.
    """
    path = sqlite_path(uri)
    if path is not None and not _is_there(path):
        raise InputError(
            f"The MLflow store ({option}) is {path}, which does not exist. Change into the folder "
            f"of the sweep, or name its store with {option}."
        )
    check_store(uri, option)
    if is_server(uri):
        return
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        if sqlalchemy.inspect(engine).has_table("runs"):
            return
    finally:
        engine.dispose()
    raise InputError(
        f"The MLflow store ({option}) is {redacted(uri)}, a database without MLflow's tables. Name "
        f"the store that the sweep was tracked in with {option}."
    )


def _is_there(path: Path) -> bool:
    """Whether there is anything; where nothing can be there, `check_store` says why."""
    try:
        return named_path(path).exists()
    except UnusableFileError:
        return True


def check_database(url: str, option: str) -> None:
    """Connects to a database, or looks at the file of a SQLite one; writes nothing.

    Raises:
        InputError: It cannot be used.
    """
    check_readable(url, option)
    if url.startswith("sqlite"):
        _check_sqlite(url, option)
        return
    import sqlalchemy

    encoding = "UTF8"
    try:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            if url.startswith("postgresql"):
                encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        engine.dispose()
    except TypeError:
        if not url.startswith("postgresql"):
            raise
        encoding = "SQL_ASCII"  # Its texts arrive as bytes, which SQLAlchemy cannot read.
    except ModuleNotFoundError as error:
        raise InputError(
            f"{option} {redacted(url)} needs the driver '{error.name}', which is not installed. "
            "For PostgreSQL write postgresql+psycopg://, and in the clone: pip install -c "
            "constraints.txt -e '.[postgresql]'"
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        # The kind alone: the message repeats the address, and that may hold a password.
        raise InputError(
            f"{option} {redacted(url)} cannot be reached ({type(error).__name__}). Give a database "
            "such as sqlite:///sweeps.db or postgresql+psycopg://user@host/name."
        ) from error
    if encoding != "UTF8":
        raise InputError(
            f"{option} {redacted(url)} must be a database that takes all letters. Received: one "
            f"with the encoding {encoding}. Make it anew: CREATE DATABASE name ENCODING 'UTF8' "
            "TEMPLATE template0."
        )


def check_owner(url: str, option: str, own: set[str]) -> None:
    """Looks whose tables a database has; one that is not there, or empty, is nobody's.

    MLflow and Optuna both write down their version under one name, so neither can be used any more
    once the other one has made tables beside its own. Both add tables of their own to those of a
    later version before they find out that they cannot use them.

    Args:
        own: OPTUNA_TABLES or MLFLOW_TABLES: whose it may be.

    Raises:
        InputError: It is the other one's, or was made by a later version.
    """
    tables = _tables(url)
    other, name, mine = MLFLOW_TABLES, "MLflow's runs", "a study"
    if own == MLFLOW_TABLES:
        other, name, mine = OPTUNA_TABLES, "Optuna's studies", "MLflow's runs"
    if tables is not None and other <= tables and not own <= tables:
        raise InputError(
            f"{option} must be a database for {mine}. Received: {redacted(url)}, which holds "
            f"{name}. Name another one."
        )
    library = "mlflow" if own == MLFLOW_TABLES else "optuna"
    later = _later_schema(url, library, tables or set())
    if later is not None:
        raise InputError(
            f"{option} must be a database that this version of {library} can use. Received: "
            f"{redacted(url)}, whose tables have the version {shown(later)}, which it does not "
            f"know: a later one made them. Update it (pip install --upgrade {library}), or name "
            "another database."
        )


def _later_schema(url: str, library: str, tables: set[str]) -> str | None:
    """The version of tables that the installed library does not know; None where it knows them."""
    for table, folder in SCHEMAS[library].items():
        known = _known_versions(library, folder) if table in tables else frozenset()
        if known:  # Else a library that keeps its versions elsewhere says it itself.
            unknown = [version for version in _versions(url, table) if version not in known]
            if unknown:
                return unknown[0]
    return None


def _versions(url: str, table: str) -> list[str]:
    """What a table of versions holds; nothing where it cannot be read, which opening it tells."""
    text = f"SELECT version_num FROM {table}"  # noqa: S608 - a name of SCHEMAS
    path = sqlite_path(url)
    if path is not None:
        try:
            return [str(version) for (version,) in _sqlite_rows(path, text)]
        except sqlite3.Error:
            return []
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(url)
        try:
            with engine.connect() as connection:
                return [str(version) for version in connection.exec_driver_sql(text).scalars()]
        finally:
            engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError):
        return []


@lru_cache
def _known_versions(library: str, folder: str) -> frozenset[str]:
    """The versions of tables that a library can bring up to date, read without importing it."""
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        return frozenset()
    files = (Path(spec.origin).parent / folder / "versions").glob("*.py")
    found = (_REVISION.search(file.read_text(encoding="utf-8")) for file in files)
    return frozenset(match[1] for match in found if match is not None)


def is_there(url: str, own: set[str]) -> bool:
    """Whether a database has these tables; True where it cannot be read, which opening it tells."""
    tables = _tables(url)
    return tables is None or own <= tables


def _tables(url: str) -> set[str] | None:
    """The tables of a database, looked at without making anything; None where it cannot be read."""
    path = sqlite_path(url)
    if path is not None:
        if not path.exists():
            return set()
        try:
            return _sqlite_tables(path)
        except sqlite3.Error:
            return None
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(url)
        try:
            return set(sqlalchemy.inspect(engine).get_table_names())
        finally:
            engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError):
        return None


def _check_sqlite(url: str, option: str) -> None:
    """Raises InputError unless the file of a SQLite address is, or can become, a database."""
    path = sqlite_path(url)
    if path is None:
        raise InputError(
            f"{option} must name a file: what is in memory is lost, and processes cannot share it. "
            f"Received: {url}. Try sqlite:///sweeps.db."
        )
    _check_sqlite_address(url, option)
    try:
        named_path(path)
        if path.exists():
            check_regular(path)
    except UnusableFileError as error:
        raise InputError(
            f"{option} must name a file that is, or can become, a database. Received: "
            f"{shown(str(path))}, but {error}. Choose another name."
        ) from None
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"{option} must name a file in an existing folder. Received: {path}.")
    try:
        start = b""
        if path.exists():
            with path.open("r+b") as file:
                start = file.read(len(SQLITE_HEADER))
        # SQLite writes its journal beside the file, so the folder must be writable as well.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{option}: {path} cannot be written ({error.strerror or error}). Change into a folder "
            f"that you can write to, or name another file with {option}."
        ) from error
    if start and start != SQLITE_HEADER:
        raise InputError(
            f"{option} names {path}, which is no SQLite database. Choose another name."
        )
    if start:
        _check_tables(path, option)


def _sqlite_tables(path: Path) -> set[str]:
    """The names in the schema of a SQLite file, which is opened to be read only.

    Raises:
        sqlite3.Error: It is locked or damaged.
    """
    return {str(name) for (name,) in _sqlite_rows(path, "SELECT name FROM sqlite_master")}


def _sqlite_rows(path: Path, text: str) -> list[tuple[object, ...]]:
    address = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
        return database.execute(text).fetchall()


def _check_sqlite_address(url: str, option: str) -> None:
    """Raises InputError for a driver or an option that there is not."""
    scheme, _, rest = url.partition(":")
    if scheme not in SQLITE_SCHEMES:
        raise InputError(
            f"{option} must be a SQLite file, by one of {', '.join(SQLITE_SCHEMES)}. Received: "
            f"{shown(scheme)}. Write sqlite:///sweeps.db."
        )
    given = {part.partition("=")[0] for part in rest.partition("?")[2].split("&")} - {""}
    if unknown := sorted(given - SQLITE_OPTIONS):
        raise InputError(
            f"{option} must have SQLite's own options. Received: {shown(unknown[0])}. Choose from: "
            f"{', '.join(sorted(SQLITE_OPTIONS))}; or leave everything from the ? on out."
        )


def _check_tables(path: Path, option: str) -> None:
    """Raises InputError for a file that begins as a SQLite database and is none."""
    try:
        _sqlite_tables(path)
    except sqlite3.OperationalError:
        return  # Locked by who writes it; whoever opens it waits.
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"{option} names {path}, which is damaged ({error}). Restore it from a copy, or choose "
            "another name."
        ) from None


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite address, or None for an address in memory or of another kind."""
    if not url.startswith("sqlite"):
        return None
    _, _, rest = url.partition(":///")
    name = unquote(rest.partition("?")[0])
    if not name or name == ":memory:" or _is_in_memory(unquote(rest)):
        return None
    return Path(name)


def _is_in_memory(name: str) -> bool:
    """Whether SQLite takes a name for an address of its own, of no file (sqlite.org/uri.html)."""
    return name.startswith("file:") and re.search(r":memory:|mode=memory|memdb", name) is not None


class WatchedFile:
    """The file of a store that is open, to notice that it was removed or replaced.

    SQLite writes on into a file that nobody can open any more, and says nothing.

    Args:
        uri: of a store; of one that is no file nothing is watched.
    """

    def __init__(self, uri: str) -> None:
        path = sqlite_path(uri)
        self._path = None if path is None else path.absolute()
        self._identity = self._look()

    def check(self) -> None:
        """Raises OSError where the file is not the one that was opened."""
        is_gone = self._identity is None  # A library may have it open for longer.
        if self._path is not None and (is_gone or self._look() != self._identity):
            raise OSError(
                f"{self._path} was removed or replaced after it was opened, and cannot be read any "
                "more. Put it back; `keras-sweeps doctor NAME --repair` restores what MLflow lacks"
            )

    def _look(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


def absolute_uri(uri: str, folder: Path | None = None) -> str:
    """The same store as MLflow is opened with it: with the whole path of a SQLite file.

    MLflow keeps each store that it has opened for the rest of the process, by its address; in
    another working folder a relative one would still be the file in the first. A password is
    written in codes, because MLflow reads addresses by the rules of the web.

    Args:
        folder: that a relative path is in; None for the working folder.
    """
    path, folder = sqlite_path(uri), folder or Path.cwd()
    if path is None:
        return encoded(uri)
    if path.is_absolute():
        return uri
    head, _, name = uri.partition(":///")
    if not any(letter in str(folder) for letter in "%?"):
        return f"{head}:///{folder}/{name}"
    import sqlalchemy

    # With codes for the slashes, too: MLflow makes the folder of the address as it is written.
    file, options = name.partition("?")[::2]
    coded = f"{head}:///{quote(f'{folder}/{unquote(file)}', safe='')}"
    if sqlalchemy.make_url(coded).database != f"{folder}/{unquote(file)}":
        return uri  # An earlier SQLAlchemy, which reads no codes.
    return f"{coded}?{options}" if options else coded


def ui_command(uri: str) -> str | None:
    """The command that shows the store in a browser; None where a server already does."""
    if is_server(uri):
        return None
    # A folder of MLflow's old kind makes a plain `mlflow ui` show that instead.
    if uri == DEFAULT_URI and not any(Path("mlruns").glob("*/meta.yaml")):
        return "mlflow ui"
    return f"mlflow ui --backend-store-uri {shlex.quote(redacted(uri))}"


def public_address(uri: str) -> str:
    """A server as a browser reaches it: `SWEEPS_PUBLIC_URL`, else as it was named."""
    return redacted(os.environ.get(PUBLIC_URL_VARIABLE) or uri).rstrip("/")


def _check_server(uri: str, option: str) -> None:
    import requests

    base, is_ours = uri.rstrip("/"), option == "--tracking-uri"
    try:
        answer = requests.get(f"{base}/health", timeout=CHECK_SECONDS)
        reason = "" if answer.ok else f"status {answer.status_code}"
    except requests.RequestException as error:
        reason = type(error).__name__
    if reason:
        raise InputError(
            f"{option}: the MLflow server {redacted(uri)} does not answer at /health ({reason}). "
            "Start it: `keras-sweeps server`"
            f"{', or leave the option out to track in mlflow.db here' if is_ours else ''}."
        )
    # What /health tells everybody says nothing of whether this client may do anything.
    page = f"{base}/api/2.0/mlflow/experiments/search?max_results=1"
    try:
        status = requests.get(page, timeout=CHECK_SECONDS, **credentials()).status_code
    except requests.RequestException:
        return
    if status == HTTPStatus.UNAUTHORIZED:
        raise InputError(
            f"{option}: {redacted(uri)} asks for a user and password, and was given none or wrong "
            "ones. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    if status == HTTPStatus.FORBIDDEN:
        raise InputError(
            f"{option}: {redacted(uri)} refuses requests under this name (status 403). Start the "
            "server with the name in --allowed-hosts, or ask its administrator for permission."
        )


def credentials() -> dict[str, Any]:
    """What MLflow's client would sign in with; a user in the address counts by itself."""
    name, password = (os.environ.get(f"MLFLOW_TRACKING_{key}") for key in ("USERNAME", "PASSWORD"))
    if not (name and password):
        file = configparser.ConfigParser(interpolation=None)
        with contextlib.suppress(OSError, configparser.Error):
            file.read(Path.home() / ".mlflow" / "credentials")
        section = file["mlflow"] if file.has_section("mlflow") else {}
        name = name or section.get("mlflow_tracking_username")
        password = password or section.get("mlflow_tracking_password")
    if name and password:
        return {"auth": (name, password)}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"headers": {"Authorization": f"Bearer {token}"}} if token else {}
