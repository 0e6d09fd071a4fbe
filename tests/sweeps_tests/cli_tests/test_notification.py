"""Who is told that a sweep or a promotion has ended, and that nothing of it costs anything."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from search_spaces.errors import InputError
from sweeps.cli.main import main
from sweeps.cli.notification import Notifier, notifier_of


@pytest.fixture
def hook():
    """The address of a web hook, and what it was sent; it answers the second request with 500."""
    bodies: list[dict] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if len(bodies) == 1 else 500)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/services/SECRET", bodies
    server.shutdown()


def test_a_web_hook_gets_the_document_and_its_failure_is_a_warning_without_the_secret(hook, capsys):
    address, bodies = hook
    notifier = Notifier(address)
    notifier.tell("sweep", "Sweep s is done", {"outcome": "done"})
    assert bodies == [{"event": "sweep", "text": "Sweep s is done", "outcome": "done"}]
    assert capsys.readouterr().err == ""
    notifier.tell("sweep", "again", {})
    error = capsys.readouterr().err
    assert (
        "--notify: 127.0.0.1 was not told (it answered with status 500)" in error
        and "SECRET" not in error
    )


def test_a_command_gets_it_on_its_standard_input(tmp_path, capfd):
    code = "import sys; open('told.json', 'w').write(sys.stdin.read()); print('noise')"
    (tmp_path / "tell.py").write_text(code)
    Notifier(f"'{sys.executable}' tell.py").tell("promotion", "now champion", {"version": 3})
    assert json.loads((tmp_path / "told.json").read_text())["version"] == 3
    assert capfd.readouterr() == ("", "")
    Notifier(f"'{sys.executable}' nothing-there.py").tell("sweep", "", {})
    assert "was not told (it ended with status 2)" in capfd.readouterr().err


@pytest.mark.parametrize("target", ["no-such-program x", "", "'"])
def test_what_can_be_told_nothing_is_refused_before_the_sweep(target):
    if target:
        with pytest.raises(InputError, match="must be an address"):
            Notifier(target)
    assert (
        main(["run", "--space", "mlp", "--dataset", "digits", "--notify", "no-such-program"]) == 2
    )


def test_the_environment_may_name_it_and_nobody_is_told_by_default(monkeypatch):
    arguments = argparse.Namespace(notify=None)
    assert not notifier_of(arguments).is_on
    monkeypatch.setenv("SWEEPS_NOTIFY", "https://example.org/hook")
    assert notifier_of(arguments).is_on


@pytest.mark.long
def test_a_sweep_tells_how_it_ended(hook, monkeypatch):
    address, bodies = hook
    monkeypatch.setenv("SWEEPS_NOTIFY", address)
    options = ["--space", "mlp", "--dataset", "digits", "--trials", "1", "--epochs", "1"]
    options += ["--timeout", "none", "--no-baselines", "--name", "told", "--offline"]
    assert main(["run", *options]) == 0
    (body,) = bodies
    assert body["event"] == "sweep" and body["outcome"] == "done"
    assert body["text"].startswith("Sweep told is done: all trials ended, best val_accuracy 0.")
    assert body["sweep"]["name"] == "told" and body["best"]["trial"] == 0
