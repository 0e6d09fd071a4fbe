"""The GPU proving script: what it refuses, how it ends parts, what it writes; and all of it in small."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from sweeps.resources.gpus import Gpu, GpuQueryError, NvidiaSmi

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
NAMES = ["device", "plain", "packing", "memory", "spare", "sweep", "kill", "auto"]
MADE = {
    "good": """
def find(task):
    yield Finding("it holds", 3.0, "s", "at most 4 s", 5, "promise", True, "a | note")
    yield Finding("a goal", 0.5, "x", "1 or more", 2, "goal", False)
""",
    "broken": """
def find(task):
    yield Finding("every trial is counted once", "3 in 4", kind="promise", held=False)
""",
    "failing": """
def find(task):
    yield Finding("so far", 1.0)
    raise OSError("no such\\n device")
""",
    "dying": """
def find(task):
    yield Finding("so far", 1.0)
    print("last words", flush=True)
    os._exit(7)
""",
    "hanging": """
def find(task):
    child = subprocess.Popen(["sleep", "600"])
    (OUT / "child").write_text(str(child.pid))
    yield Finding("so far", 1.0)
    (OUT / "hangs").touch()
    time.sleep(600)
""",
}  # fmt: skip


@pytest.fixture
def script(monkeypatch) -> ModuleType:
    """The script as a module, on a machine with a GPU, and images that nobody looks at."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu
    from gpu_parts import images

    found = (Gpu("0", "NVIDIA H200", 141 * 2**30, "GPU-aaaa"),)
    monkeypatch.setattr(gpu, "_checked_gpus", lambda options: found)
    monkeypatch.setattr(images, "prepare_images", lambda *_, **__: ("mnist", "MNIST"))
    monkeypatch.setattr(gpu.sys, "path", [*sys.path])
    return gpu


@pytest.fixture
def parts(script, tmp_path, monkeypatch):
    """Replaces the parts by made-up ones."""

    def use(*names: str) -> None:
        made = tmp_path / "made"
        made.mkdir()
        head = "import os, subprocess, time\nfrom pathlib import Path\n"
        head += f"from gpu_parts.findings import Finding\nOUT = Path({str(tmp_path)!r})\n"
        for name in names:
            (made / f"{name}.py").write_text(head + MADE[name])
        monkeypatch.setenv("PYTHONPATH", str(made))
        found = tuple(script.Part(name, f"the {name} part", 10, package="") for name in names)
        monkeypatch.setattr(script, "PARTS", found)

    return use


def written(folder: Path) -> tuple[dict, str]:
    return json.loads((folder / "gpu.json").read_text()), (folder / "gpu.md").read_text()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--minutes", "0"], "--minutes must be a number above 0. Received: 0."),
        (["--minutes", "nan"], "--minutes must be a number above 0. Received: nan."),
        (["--minutes", "many"], "--minutes must be a number above 0. Received: many."),
        (["--only", "packin"], f"Unknown part 'packin'. Did you mean 'packing'? Choose one of: "
         f"{', '.join(NAMES)}."),
        (["--backend", "theano"], "Unknown backend 'theano'."),
        (["--standin"], "Unknown option '--standin'. Did you mean '--stand-in'?"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_line_before_anything_is_started(script, capsys, options, words):
    assert script.main(options) == 2
    out, error = capsys.readouterr()
    assert words in error and error.count("\n") == 1 and out == ""
    assert list(Path().iterdir()) == []


def test_a_backend_that_is_not_installed_is_one_line_with_the_command(script, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert script.main(["--backend", "jax", "--stand-in"]) == 2
    error = capsys.readouterr().err
    assert "jax" in error and "pip install" in error and error.count("\n") == 1
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("found", [(), "nvidia-smi fails (no driver)"])
def test_without_a_gpu_it_says_the_way_out(monkeypatch, capsys, found):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    def gpus(self: NvidiaSmi) -> tuple[Gpu, ...]:
        if found:
            raise GpuQueryError(str(found))
        return ()

    monkeypatch.setattr(NvidiaSmi, "gpus", gpus)
    assert gpu.main([]) == 2
    error = capsys.readouterr().err
    assert "--stand-in" in error and (found or "lists none") in error and error.count("\n") == 1
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", ["gpu.json", "gpu.md", "logs"])
def test_what_is_there_is_not_overwritten(script, parts, capsys, name):
    parts("good")
    folder = Path("found")
    folder.mkdir()
    (folder / name).write_text("mine")
    assert script.main(["--output", "found"]) == 2
    assert f"--output must not hold {name}" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_text() == "mine"
    assert script.main(["--output", str(folder / name)]) == 2
    assert "--output must be a folder" in capsys.readouterr().err


def test_all_that_was_found_is_printed_and_written(script, parts, capsys):
    parts("good")
    assert script.main(["--output", "found", "--backend", "tensorflow"]) == 0
    out = capsys.readouterr().out
    assert "1 x NVIDIA H200, tensorflow" in out
    assert "it holds" in out and "holds\n" in out and "not reached" in out
    body, page = written(Path("found"))
    assert body["what"] == "measured on a GPU" and body["not_held"] == []
    assert body["card"] == "1 x NVIDIA H200" and body["images"] == "MNIST"
    assert {"date", "driver", "commit", "num_cores"} <= set(body)
    assert {"Python", "keras", "tensorflow"} <= set(body["versions"])
    (part,) = body["parts"]
    assert part["part"] == "good" and part["problem"] == "" and part["limit_seconds"] == 540
    assert part["findings"][0] == {
        "name": "it holds", "found": 3.0, "unit": "s", "expected": "at most 4 s", "n": 5,
        "kind": "promise", "held": True, "note": "a | note",
    }  # fmt: skip
    assert page.startswith("### 1 x NVIDIA H200, tensorflow, ")
    assert "| good | it holds | at most 4 s | 3 s (a / note) | 5 | holds |" in page
    assert "| good | a goal | 1 or more | 0.5 x | 2 | not reached |" in page
    assert "stand-in" not in page + out
    assert not (Path("found") / "logs").exists()


def test_a_promise_that_does_not_hold_is_status_1_with_its_name(script, parts, capsys):
    parts("broken", "good")
    assert script.main(["--output", "found"]) == 1
    out, error = capsys.readouterr()
    assert error == "error: does not hold: broken: every trial is counted once\n"
    assert "DOES NOT HOLD" in out and "it holds" in out
    assert written(Path("found"))[0]["not_held"] == ["broken: every trial is counted once"]
    assert (Path("found") / "logs" / "broken" / "part.log").exists()


def test_a_part_that_fails_leaves_what_it_had_and_the_others_go_on(script, parts, capsys):
    parts("failing", "dying", "good")
    assert script.main(["--output", "found"]) == 1
    body, page = written(Path("found"))
    failing, dying, good = body["parts"]
    assert failing["problem"] == "failed: OSError: no such device"
    assert dying["problem"] == "ended with status 7: last words"
    assert [one["findings"][0]["name"] for one in (failing, dying)] == ["so far", "so far"]
    assert good["problem"] == "" and len(good["findings"]) == 2
    assert "| failing | failed: OSError: no such device | | | | |" in page
    assert capsys.readouterr().err.splitlines() == [
        "error: not shown to hold: failing: failed: OSError: no such device",
        "error: not shown to hold: dying: ended with status 7: last words",
    ]
    assert "Traceback" in (Path("found") / "logs" / "failing" / "part.log").read_text()


def test_a_part_that_hangs_is_ended_with_all_its_processes_at_its_limit(script, parts):
    parts("hanging", "good")
    began = time.monotonic()
    assert script.main(["--output", "found", "--minutes", "0.3"]) == 1
    assert time.monotonic() - began < 60
    hanging, good = written(Path("found"))[0]["parts"]
    assert hanging["problem"] == "out of time after 9 s"
    assert [finding["name"] for finding in hanging["findings"]] == ["so far"]
    assert len(good["findings"]) == 2
    assert is_gone(int(Path("child").read_text()))


def test_one_part_alone_has_all_the_minutes(script, parts):
    parts("broken", "good")
    assert script.main(["--output", "found", "--only", "good", "--minutes", "2"]) == 0
    (good,) = written(Path("found"))[0]["parts"]
    assert good["part"] == "good" and good["limit_seconds"] == 120


def start(names: tuple[str, ...], *options: str) -> subprocess.Popen[bytes]:
    """The command with made-up parts in a process of its own, from this working folder."""
    body = f"""
import sys
sys.path[:0] = [{str(ROOT / "benchmarks")!r}, {str(ROOT)!r}]
import gpu, signal
from gpu_parts import images
gpu.PARTS = tuple(gpu.Part(name, name, 10, package="") for name in {names!r})
gpu._checked_gpus = lambda options: ()
images.prepare_images = lambda *_, **__: ("mnist", "MNIST")
signal.signal(signal.SIGTERM, gpu._interrupt)
signal.signal(signal.SIGINT, signal.default_int_handler)  # A job in the background ignores it.
sys.exit(gpu.main({list(options)!r}))
"""
    environment = {**os.environ, "TMPDIR": str(Path.cwd())}  # One that is killed leaves its files.
    return subprocess.Popen([sys.executable, "-c", body], env=environment, start_new_session=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_running_part_and_writes_what_there_is(script, parts, number):
    parts("good", "hanging", "broken")
    command = start(("good", "hanging", "broken"), "--output", "found")
    wait_for(lambda: Path("hangs").exists())
    os.kill(command.pid, number)
    assert command.wait(60) == 130
    assert is_gone(int(Path("child").read_text()))
    body, page = written(Path("found"))
    assert [part["part"] for part in body["parts"]] == ["good", "hanging"]
    assert body["parts"][1]["problem"] == "interrupted"
    assert [finding["name"] for finding in body["parts"][1]["findings"]] == ["so far"]
    assert "| hanging | interrupted |" in page


def test_no_part_outlives_the_command(script, parts):
    parts("hanging")
    command = start(("hanging",), "--output", "found")
    wait_for(lambda: Path("hangs").exists())
    command.kill()
    command.wait()
    wait_for(lambda: is_gone(int(Path("child").read_text())), 20)


def test_findings_of_a_process_that_was_killed_are_read_without_its_last_line(script, tmp_path):
    from gpu_parts.findings import Finding, read

    path = tmp_path / "findings.jsonl"
    assert read(path) == ([], "")
    path.write_text('{"name": "a", "found": 1.5}\n{"name": "b", "fou')
    assert read(path) == ([Finding("a", 1.5)], "")


def test_a_trial_that_was_cut_off_counts_as_its_epochs_have_it(script):
    from gpu_parts.trials import Life

    epochs = ((14.0, {"epoch_seconds": 2.0}), (16.0, {}), (19.0, {}))
    assert Life(0, 10.0, epochs, 20.5, "COMPLETE", 0.9).seconds(3) == 10.5
    assert Life(0, 10.0, epochs, None, "RUNNING", None).seconds(5) == 4.0 + 4 * 2.5
    assert Life(0, 10.0, epochs[:1], 15.0, "PRUNED", None).seconds(3) == 4.0 + 2 * 2.0
    assert Life(0, 10.0, (), 15.0, "FAILED", None).seconds(3) is None


def test_the_resource_that_gives_first_is_that_with_the_fewest_trials(script):
    from gpu_parts.load import Load
    from gpu_parts.packing import _gives_first

    few, cores, gpu = Load(30.0, 2.0), Load(80.0, 15.0), Load(97.0, 15.9)
    assert _gives_first({1: few, 2: cores, 4: gpu}, 16) == "the cores, with 2 at once"
    assert _gives_first({1: few, 4: gpu}, 16) == "the GPU, with 4 at once"
    assert _gives_first({1: Load(None, None)}, 16) == "neither is in use for 90 %"


def test_contracts_are_asked_without_pytest_too(script, monkeypatch):
    from gpu_parts import device

    monkeypatch.setitem(sys.modules, "pytest", None)
    with device._pytest_or_less() as patching:
        less = sys.modules["pytest"]
        with pytest.raises(AssertionError, match="no ValueError"), less.raises(ValueError):
            pass
        with less.raises(ValueError, match="odd"):
            raise ValueError("an odd number")
        with patching() as environment:
            environment.setenv("CUDA_VISIBLE_DEVICES", "7")
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_images_are_made_where_there_is_no_mnist(script, tmp_path):
    from gpu_parts.images import made_images

    arrays = made_images()
    assert arrays["x_train"].shape == (60_000, 28, 28) and str(arrays["x_train"].dtype) == "uint8"
    assert arrays["x_test"].shape == (10_000, 28, 28) and set(arrays["y_test"]) == set(range(10))


@pytest.mark.backends
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_all_of_it_in_small_holds_on_the_other_backends(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--stand-in", "--backend", backend, "--output", "found"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    body, _ = written(tmp_path / "found")
    assert [part["part"] for part in body["parts"]] == NAMES and body["backend"] == backend
    assert body["not_held"] == body["not_shown"] == []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_all_of_it_in_small_holds_on_cores(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--stand-in", "--output", "found"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    body, page = written(tmp_path / "found")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [part["part"] for part in body["parts"]] == NAMES
    for text in (done.stdout, page, body["what"], body["card"]):
        assert "stand-in on cores" in text
    assert "no figure of this section is one of a GPU" in page and body["driver"] == "none"
    found = {
        (part["part"], finding["name"]): finding
        for part in body["parts"]
        for finding in part["findings"]
    }
    promises = [finding for finding in found.values() if finding["kind"] == "promise"]
    assert len(promises) >= 25 and all(finding["held"] for finding in promises)
    assert all(finding["n"] >= 1 for finding in found.values())
    assert found["device", "contract of the inventory"]["n"] == 4
    assert found["plain", "images/s: project / model.fit"]["found"] > 0
    assert found["packing", "2 at once"]["n"] == 2
    assert found["packing", "what auto chooses"]["found"] in ("1 at once", "2 at once")
    assert found["memory", "beyond its part: array"]["found"] == "ResourceExhaustedError"
    assert found["memory", "array: taken for out of memory"]["found"] == "yes"
    assert found["spare", "start to first step, with a spare"]["found"] > 0
    assert found["sweep", "--gpus none: points tried"]["found"] == 1
    assert found["sweep", "on the GPU: best val_accuracy"]["found"] > 0.1
    assert found["kill", "every trial is counted once"]["found"] == "4 trials in 4 records"
    assert found["memory", "without room: from the last epoch"]["held"] is True
    assert found["auto", "auto's choice / another way"]["unit"] == "x"
    assert os.listdir(tmp_path) == ["found"]
    assert sorted(os.listdir(tmp_path / "found")) == ["gpu.json", "gpu.md"]
