"""What stands before MLflow's authentication: a size limit, and a slow-down after failed tries.

MLflow reads a request whole before it asks who sent it, and lets anybody try passwords as fast as
they are verified.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 1 << 20
"""Of a request whose sender is not known: a page of records has some kilobytes."""
FREE_TRIES = 5
LONGEST_WAIT = 60.0
FORGOTTEN_SECONDS = 900.0
KNOWN_SECONDS = 60.0
"""As long as MLflow itself remembers that a password is right (`AUTH_CACHE_SECONDS`)."""
MOST_REMEMBERED = 10_000
_CHECK_PATH = "/api/2.0/mlflow/users/get"
_OK, _BAD_REQUEST, _UNAUTHORIZED, _TOO_LARGE, _TOO_MANY = 200, 400, 401, 413, 429


@dataclass
class _Tries:
    """Failed tries of one user's name from one address, and how many are being verified."""

    failed: int = 0
    pending: int = 0
    free_at: float = 0.0
    last: float = 0.0


class Guard:
    """An ASGI application before MLflow's; it lets through what MLflow may read.

    Who has signed in within the last minute is let through at once, whoever fails meanwhile.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, app: App, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._clock = app, clock
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._tries: OrderedDict[tuple[str, str], _Tries] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if sum(name == b"authorization" for name, _ in scope["headers"]) > 1:
            # MLflow reads the first of several: behind a right one any other could be tried freely.
            await _answer(send, _BAD_REQUEST, "More than one Authorization header.\n")
            return
        given = headers.get(b"authorization", b"")
        is_known = bool(given) and self._is_known(given)
        if given and not is_known:
            who = (str((scope.get("client") or ("",))[0]), _user(given))
            seconds = self._wait(who)
            if seconds > 0:
                text = f"Too many failed tries. Try again in {math.ceil(seconds)} seconds.\n"
                await _answer(send, _TOO_MANY, text, (b"retry-after", b"%d" % math.ceil(seconds)))
                return
            status = await self._verified(scope, given, who)
            if status == _UNAUTHORIZED:
                await _refuse(send)
                return
            is_known = status == _OK
        if not is_known and _is_large(headers):
            if given:
                await _answer(send, _TOO_LARGE, "Too large for a sender who is not known.\n")
            else:
                await _refuse(send)
            return
        await self._app(scope, receive, send)

    def _digest(self, given: bytes) -> bytes:
        return hashlib.blake2b(given, key=self._key).digest()

    def _is_known(self, given: bytes) -> bool:
        return self._known.get(self._digest(given), -math.inf) > self._clock()

    def _wait(self, who: tuple[str, str]) -> float:
        """Seconds until that user may be tried again from that address."""
        tries = self._tries.get(who)
        if tries is None:
            return 0.0
        if tries.failed + tries.pending >= FREE_TRIES and tries.pending:
            return 1.0  # Tries at once are tries, too.
        return tries.free_at - self._clock()

    async def _verified(self, scope: Scope, given: bytes, who: tuple[str, str]) -> int:
        """The status of a request that only who has signed in is answered."""
        tries = self._tries.setdefault(who, _Tries())
        self._tries.move_to_end(who)
        if len(self._tries) > MOST_REMEMBERED:
            self._tries.popitem(last=False)
        now = self._clock()
        if now - tries.last > FORGOTTEN_SECONDS:
            tries.failed = 0
        tries.pending += 1
        try:
            status = await _status(self._app, scope, given, who[1])
        finally:
            tries.pending -= 1
        now = tries.last = self._clock()
        if status == _UNAUTHORIZED:
            tries.failed += 1
            if tries.failed >= FREE_TRIES:
                tries.free_at = now + min(LONGEST_WAIT, 2.0 ** (tries.failed - FREE_TRIES))
        elif status == _OK:
            tries.failed, tries.free_at = 0, 0.0
            self._known[self._digest(given)] = now + KNOWN_SECONDS
            self._known.move_to_end(self._digest(given))
            if len(self._known) > MOST_REMEMBERED:
                self._known.popitem(last=False)
        return status


def _user(given: bytes) -> str:
    """The name in a header of basic authentication; empty for any other."""
    kind, _, text = given.partition(b" ")
    if kind.lower() != b"basic":
        return ""
    try:
        return base64.b64decode(text).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        return ""


def _is_large(headers: MutableMapping[bytes, bytes]) -> bool:
    """Whether a request's body is, or may be, larger than who is not known may send."""
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or not length.isdigit():
        return True
    return len(length) > 12 or int(length) > MOST_BYTES


async def _status(app: App, scope: Scope, given: bytes, user: str) -> int:
    """What MLflow says to a small request with these credentials."""
    kept = [pair for pair in scope["headers"] if pair[0] in (b"host", b"user-agent")]
    request = {
        **scope, "method": "GET", "path": _CHECK_PATH, "raw_path": _CHECK_PATH.encode(),
        "query_string": f"username={quote(user, safe='')}".encode(),
        "headers": [*kept, (b"authorization", given)], "state": {},
    }  # fmt: skip
    found: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            found.append(int(message["status"]))

    await app(request, receive, send)
    return found[0] if found else 0


async def _refuse(send: Send) -> None:
    header = (b"www-authenticate", b'Basic realm="mlflow"')
    await _answer(send, _UNAUTHORIZED, "You are not authenticated. Sign in.\n", header)


async def _answer(send: Send, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    body = text.encode()
    fixed = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"),
             (b"content-length", b"%d" % len(body))]  # fmt: skip
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})


def create_app() -> Guard:
    """MLflow's application with users, guarded: what each process of the server makes."""
    from mlflow.server.auth import create_app as mlflow_app

    return Guard(mlflow_app())  # type: ignore[no-untyped-call]
