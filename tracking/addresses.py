"""Addresses of stores and servers, and what of them may be shown: never a password.

The address of a database is read as SQLAlchemy reads it, which opens it: in a password it takes
signs that end the host for everybody else. Any other is read by the rules of the web.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

from search_spaces.errors import InputError

HIDDEN = "***"
UNREADABLE = "(an address that cannot be read)"
_SERVERS = ("http", "https")
_BUCKETS = ("s3", "r2", "gs", "wasbs", "abfss", "hdfs", "dbfs", "file", "mlflow-artifacts", "ftp")
"""Whatever else has a scheme is a database: other packages may add kinds to SQLAlchemy's."""
_DATABASE_USER = re.compile(r"([^:/]*)(?::([^@]*))?@")
"""The part of SQLAlchemy's own expression (`sqlalchemy.engine.url._parse_url`) before the host."""
_NO_PASSWORD = "x-oauth-basic"  # noqa: S105
"""What stands for a password where the user is a token, as GitHub has it."""
_SECRET_NAME = re.compile(
    r"passw|passphrase|token|secret|signature|credential|(?:api|access|account|private)[_-]?key"
    r"|(?:^|[^a-z])(?:pass|pwd|sig|auth|sas)(?:$|[^a-z])|^(?:key|odbc_connect)$",
    re.IGNORECASE,
)
"""Query parameters whose value is not shown; `odbc_connect` is a whole text with its password."""


@dataclass(frozen=True)
class _Address:
    """An address that was read.

    Attributes:
        shown: without its secrets.
        location: without its secrets and its user.
        secrets: as they stand in the address.
    """

    shown: str
    location: str
    secrets: tuple[str, ...] = ()


def redacted(address: str) -> str:
    """An address without its secrets, wherever they stand; one that cannot be read is not shown."""
    found = _read(address)
    return UNREADABLE if found is None else found.shown


def holds_password(address: str) -> bool:
    """Whether a password, or a token, stands in an address."""
    found = _read(address)
    return found is not None and bool(found.secrets)


def is_readable(address: str) -> bool:
    """Whether it is known which part of an address is what, and so what of it may be shown."""
    return _read(address) is not None


def check_readable(address: str, option: str) -> None:
    """Raises InputError, which does not repeat the address, unless it can be read."""
    if not is_readable(address):
        raise InputError(
            f"{option} must be an address that can be read: scheme://user@host:port/name. It is "
            "not repeated here, because it may hold a password. Within its parts write the signs "
            "% @ : / ? # [ ] as %25 %40 %3A %2F %3F %23 %5B %5D."
        )


def location_of(address: str) -> str:
    """An address without user and password: two that lead to one store are equal."""
    found = _read(address)
    return address if found is None else found.location.rstrip("/")


def scrubbed(text: str, address: str) -> str:
    """A library's message about an address, without the address's secrets."""
    found = _read(address)
    text = text.replace(address, redacted(address))
    forms = {form for secret in (found.secrets if found else ()) for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return text


def encoded(address: str) -> str:
    """The same database with its password in codes, so that every library reads it alike."""
    if _kind(address) != "database" or not holds_password(address):
        return address
    from sqlalchemy import make_url

    return make_url(address).render_as_string(hide_password=False)


def _forms(secret: str) -> set[str]:
    """How a library may write a secret."""
    meant = {secret, unquote(secret), unquote_plus(secret)}
    codes = {code for one in meant for code in (quote(one), quote(one, safe=""), quote_plus(one))}
    return meant | codes | {repr(one)[1:-1] for one in meant}


def _kind(address: str) -> str:
    scheme, separator, _ = address.partition("://")
    if not separator:
        return "path"
    if scheme.lower() in _SERVERS:
        return "server"
    return "bucket" if scheme.lower() in _BUCKETS else "database"


def _read(address: str) -> _Address | None:
    """What the parts of an address are; None where that cannot be known."""
    kind = _kind(address)
    if kind == "path":  # What has an @ may be an address without its slashes.
        return None if "@" in address else _Address(address, address)
    if not (_is_database(address) if kind == "database" else _is_web(address)):
        return None
    scheme, _, rest = address.partition("://")
    user, password, place = (_database_parts if kind == "database" else _web_parts)(rest)
    where, sign, query = _parted(place, "?" if kind == "database" else "?#")
    query, secrets = _hidden(query)
    is_local = user is None and where.startswith("/")
    if "@" in where + query and not is_local:
        return None  # A sign of the password, or the whole host, may have been taken for a part.
    who = ""
    if user is not None:
        who = user if password is None else f"{user}:{HIDDEN if password else ''}"
        secrets.append(password or "")
        if kind == "server" and password in (None, "", _NO_PASSWORD):
            secrets.append(user)
        if kind == "server" and who.strip(":"):
            who = HIDDEN
        who += "@"
    location = f"{scheme}://{where}{sign}{query}"
    found = tuple(secret for secret in secrets if secret not in ("", HIDDEN))
    shown = f"{scheme}://{who}{where}{sign}{query}" if found else address
    return _Address(shown, location, found)


def _is_database(address: str) -> bool:
    if address.startswith("sqlite:///") and "?" not in address:
        return True  # A plain file, known without an import.
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(address)
    except (ArgumentError, ValueError):
        return False
    return True


def _is_web(address: str) -> bool:
    if "\\" in address or any(sign <= " " for sign in address):
        return False  # Which some readers leave out, or take for a slash.
    try:
        _ = urlsplit(address).port
    except ValueError:
        return False
    return True


def _database_parts(rest: str) -> tuple[str | None, str | None, str]:
    """User, password and what follows, of what stands behind the scheme."""
    found = _DATABASE_USER.match(rest)
    return (None, None, rest) if found is None else (found[1], found[2], rest[found.end() :])


def _web_parts(rest: str) -> tuple[str | None, str | None, str]:
    host, sign, path = _parted(rest, "/?#")
    who, at, host = host.rpartition("@")
    user, colon, password = who.partition(":")
    return (user if at else None, password if colon else None, host + sign + path)


def _parted(text: str, signs: str) -> tuple[str, str, str]:
    """As `str.partition`, at the first of several signs."""
    found = re.search(f"[{re.escape(signs)}]", text)
    if found is None:
        return text, "", ""
    return text[: found.start()], found[0], text[found.end() :]


def _hidden(query: str) -> tuple[str, list[str]]:
    """A query without the values of its secrets, and those."""
    secrets: list[str] = []

    def hide(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        if _SECRET_NAME.search(unquote_plus(name)):
            secrets.append(value)
            return f"{name}={HIDDEN if value else ''}"
        rest, more = _hidden(value)  # Behind a semicolon, or in the fragment.
        secrets.extend(more)
        return f"{name}={rest}"

    return re.sub(r"([^&;=?#]+)=([^&]*)", hide, query), secrets
