"""What a server with users does before it knows who asks."""

from __future__ import annotations

import asyncio
import base64

import pytest

from tracking.mlflow_server.guard import FREE_TRIES, KNOWN_SECONDS, LONGEST_WAIT, Guard

PASSWORDS = {"anna": "right", "bert": "right"}


class Server:
    """A guard before an application that verifies passwords, as MLflow's does; counts requests."""

    def __init__(self) -> None:
        self.now, self.asked, self.read = 0.0, 0, 0
        self.guard = Guard(self._app, lambda: self.now)

    async def _app(self, scope, receive, send):
        header = dict(scope["headers"]).get(b"authorization", b"")
        name, _, password = base64.b64decode(header.partition(b" ")[2]).decode().partition(":")
        self.asked += 1
        if scope["path"] != "/health":
            self.read += len((await receive())["body"])
        is_right = scope["path"] == "/health" or PASSWORDS.get(name) == password
        await send({"type": "http.response.start", "status": 200 if is_right else 401})
        await send({"type": "http.response.body", "body": b""})

    def ask(self, *who, path="/x", size=0, address="1.2.3.4", chunked=False) -> int:
        return asyncio.run(self._ask(who, path, size, address, chunked))

    async def _ask(self, who, path, size, address, chunked):
        headers = [(b"host", b"h"), (b"content-length", b"%d" % size)]
        if chunked:
            headers[1] = (b"transfer-encoding", b"chunked")
        for one in filter(None, who):
            headers.append((b"authorization", b"Basic " + base64.b64encode(one.encode())))
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers,
                 "client": (address, 1)}  # fmt: skip
        found = []

        async def receive():
            return {"type": "http.request", "body": b"x" * min(size, 10), "more_body": False}

        async def send(message):
            found.append(message)

        await self.guard(scope, receive, send)
        self.headers = dict(found[0].get("headers", ()))
        return found[0]["status"]


@pytest.mark.parametrize("who", ["", "anna:wrong"])
@pytest.mark.parametrize("how", [{"size": 1 << 30}, {"chunked": True}])
def test_a_large_request_of_who_is_not_known_is_not_read(who, how):
    server = Server()

    assert server.ask(who, **how) == 401
    assert server.read == 0


def test_who_signs_in_may_send_anything_at_once():
    server = Server()

    assert server.ask("anna:right", size=1 << 30) == 200
    assert server.read == 10


def test_after_some_failed_tries_the_next_one_has_to_wait():
    server = Server()
    assert [server.ask("anna:wrong") for _ in range(FREE_TRIES)] == [401] * FREE_TRIES
    asked = server.asked

    assert server.ask("anna:other") == 429 and server.asked == asked
    assert server.headers[b"retry-after"] == b"1"
    for _ in range(10):
        server.now += LONGEST_WAIT
        assert server.ask("anna:wrong") == 401
    assert server.ask("anna:wrong") == 429
    assert server.headers[b"retry-after"] == b"%d" % LONGEST_WAIT
    server.now += LONGEST_WAIT
    assert server.ask("anna:right") == 200


def test_a_health_page_does_not_make_a_wrong_password_known():
    server = Server()

    assert server.ask("anna:wrong", path="/health") == 401
    assert server.ask("anna:wrong", size=1 << 30) == 401


def test_a_right_password_does_not_let_tries_of_others_in_beside_it():
    server = Server()
    assert server.ask("bert:right") == 200
    asked = server.asked

    assert server.ask("anna:guess", "bert:right") == 400
    assert server.ask("bert:right", "anna:guess") == 400 and server.asked == asked


def test_others_and_who_has_signed_in_do_not_wait():
    server = Server()
    assert server.ask("anna:right") == 200
    for _ in range(FREE_TRIES + 1):
        server.ask("anna:wrong")

    assert server.ask("anna:wrong") == 429
    assert server.ask("anna:right") == server.ask("bert:right") == 200
    assert server.ask("anna:right", address="5.6.7.8") == 200
    server.now += KNOWN_SECONDS / 2
    assert server.ask("") == 401 and server.ask("", path="/health") == 200


def test_tries_at_the_same_time_are_counted_together():
    server = Server()

    async def all_at_once():
        answers = [server._ask(["anna:wrong"], "/x", 0, "1.2.3.4", False) for _ in range(50)]
        return await asyncio.gather(*answers)

    async def slowly(scope, receive, send, app=server._app):
        await asyncio.sleep(0)
        await app(scope, receive, send)

    server.guard._app = slowly
    statuses = asyncio.run(all_at_once())
    assert statuses.count(401) == FREE_TRIES and statuses.count(429) == 50 - FREE_TRIES
