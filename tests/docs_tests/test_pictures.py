"""The script that takes the pictures of the documents anew."""

from __future__ import annotations

import importlib.util
import shutil
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


def test_the_page_of_the_sweeps_run_is_found_beside_its_charts(script):
    charts = "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning&more=1"
    assert script.run_page(charts, "abc") == (
        "http://127.0.0.1:5000/#/experiments/7/runs/abc?workflowType=machine_learning"
    )
    with pytest.raises(SystemExit, match="is no page of"):
        script.run_page("http://127.0.0.1:5000/#/models", "abc")


def test_of_a_recording_the_first_frame_and_the_last_are_shown(script):
    frames = [str(k) for k in range(100)]
    shown = script.chosen(frames)
    assert len(shown) == script.NUM_FRAMES and (shown[0], shown[-1]) == ("0", "99")
    assert script.chosen(["only"]) == ["only"]
    text = script._frames_page(["\x1b[1;32mbest 0.9\x1b[0m", "a < b"])
    assert text.count("<pre>") == 2 and "font-weight: bold" in text and "a &lt; b" in text


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_a_terminal_is_recorded_from_the_command_to_its_end(script, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(script, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(script, "KERAS_SWEEPS", ("sh", "-c", "sleep 0.2; pwd; echo ended", "it"))
    frames = script.recorded(["--space", "it's mine"], tmp_path)
    assert frames[-1].rstrip().endswith("ended") and str(tmp_path) in frames[-1]
    assert frames[-1].startswith("$ keras-sweeps run --space")
    monkeypatch.setattr(script, "KERAS_SWEEPS", ("sh", "-c", "echo broken; exit 3", "it"))
    with pytest.raises(SystemExit, match="did not end well"):
        script.recorded([], tmp_path)
