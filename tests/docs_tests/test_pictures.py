"""The script that takes the pictures of the documents anew."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "take_pictures.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("take_pictures", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_browser_it_says_which_are_known_and_takes_nothing(script, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["take_pictures.py", "s"])
    assert script.main() == 2
    assert "needs one of chromium" in capsys.readouterr().err


def test_the_address_is_the_one_that_ui_prints(script):
    class Server:
        stdout = iter(["starting  MLflow\n", "night      http://127.0.0.1:5000/#/x\n"])

    assert script._address(Server(), "night") == "http://127.0.0.1:5000/#/x"
