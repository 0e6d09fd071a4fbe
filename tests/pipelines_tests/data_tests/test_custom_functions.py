"""A user's function that returns data: what it may return, and that nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines.data.custom import function_source
from pipelines.data.custom.function_source import write_arrays
from pipelines.data.custom.prepare import prepare_custom, print_prepared
from pipelines.data.custom.sources import custom_source
from pipelines.data.prepared import PreparedData, unfinished_folder
from search_spaces.errors import InputError

SOURCE = """
import numpy as np

def arrays():
    x = np.arange(60 * 16, dtype=np.int64).reshape(60, 4, 4) % 251
    return x, np.array(["ant", "bee", "cow"])[np.arange(60) % 3]

class Pairs:  # As a tf.data.Dataset gives its elements.

    def __init__(self, first, last, size=-2):
        self.first, self.last, self.size = first, last, size

    def cardinality(self):
        return self.size

    def as_numpy_iterator(self):
        x, y = arrays()
        y = np.array([name.encode() for name in y], dtype=object)
        for k in range(self.first, self.last, 5):
            yield x[k : k + 5], y[k : k + 5]

def two():
    return Pairs(0, 45), Pairs(45, 60)

def three():
    return [Pairs(0, 30), Pairs(30, 45), Pairs(45, 60)]

def half():
    return Pairs(0, 45), arrays()[0]

def as_dict():
    return {"train": Pairs(0, 45), "test": Pairs(45, 60)}

def endless():
    return Pairs(0, 45, size=-1)

def outside():
    x, y = arrays()
    return {"x": x, "y": y, "../../../escaped": np.zeros(3)}

def absolute():
    x, y = arrays()
    return {"x": x, "y": y, "/absolute": np.zeros(3)}

def weights():
    x, y = arrays()
    return {"x": x, "y": y, "weights": np.zeros(60)}

def twice():
    x, y = arrays()
    return {"train": (x, y), "x_train": x}

def misnamed():
    return {"training": Pairs(0, 45)}

def leaves():
    raise SystemExit("no data today")

def like_ours():
    raise TypeError("returned early")

def drawing():
    from matplotlib import pyplot
    assert pyplot.get_backend() == "agg"
    return arrays()
"""


def prepared(source: str) -> PreparedData:
    return prepare_custom(custom_source(source), Path("data"))


@pytest.fixture
def mine(tmp_path) -> Path:
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path / "mine.py"


def test_several_datasets_are_the_parts(mine):
    two = prepared("mine.py:two")
    assert two.num_images == {"train": 36, "validation": 9, "test": 15}
    assert two.class_names == ("ant", "bee", "cow")
    assert prepared("mine.py:as_dict").fingerprint == two.fingerprint
    three = prepared("mine.py:three")
    assert three.num_images == {"train": 30, "validation": 15, "test": 15}
    assert three.arrays("test")[0][0, 0, 0, 0] == 45 * 16 % 251


def test_a_function_may_draw_whatever_backend_a_notebook_names(mine, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://that_is.not_installed")
    assert sum(prepared("mine.py:drawing").num_images.values()) == 60


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("half", r"returned \(Pairs, ndarray\), which is none of these"),
        ("endless", r"returned a Dataset without an end; leave its .repeat\(\) out"),
        ("outside", r"returned '../../../escaped', which is none of the names that count"),
        ("absolute", r"returned '/absolute', which is none of"),
        (
            "weights",
            r"returned 'weights', which is none of the names that count; these do: class_n",
        ),
        ("twice", r"returned 'x_train', twice"),
        ("misnamed", r"returned a Dataset as 'training'; call it train, validation"),
        ("leaves", r"raised SystemExit: no data today"),
        ("like_ours", r"raised TypeError: returned early \(mine.py, line \d+\)"),
    ],
)
def test_what_a_function_must_not_return_is_told(mine, function, words):
    with pytest.raises(InputError, match=words) as caught:
        prepared(f"mine.py:{function}")
    assert "\n" not in str(caught.value)
    assert [path.name for path in mine.parent.iterdir()] == ["mine.py"], "nothing is left"
    assert not Path("/absolute.npy").exists()


def test_a_dataset_whose_end_nobody_knows_leaves_room_on_the_disk(tmp_path, monkeypatch):
    class Endless:
        def as_numpy_iterator(self):
            while True:
                yield np.zeros((4, 4), np.uint8), 0

    monkeypatch.setattr(function_source, "RESERVED_BYTES", 1 << 62)
    with pytest.raises(OSError, match="left on the disk after 0 images; does it ever end"):
        write_arrays(Endless(), tmp_path)


@pytest.mark.slow
def test_a_repeated_tensorflow_dataset_is_refused_and_two_are_parts(tmp_path):
    (tmp_path / "mine.py").write_text(
        f"{SOURCE}\n"
        "def repeated():\n"
        "    import tensorflow as tf\n"
        "    return tf.data.Dataset.from_tensor_slices(arrays()).shuffle(9).repeat().batch(7)\n"
        "def both():\n"
        "    import tensorflow as tf\n"
        "    whole = tf.data.Dataset.from_tensor_slices(arrays())\n"
        "    return whole.skip(15).batch(4), whole.take(15)\n"
    )
    with pytest.raises(InputError, match="a Dataset without an end"):
        prepared("mine.py:repeated")
    assert prepared("mine.py:both").num_images == {"train": 36, "validation": 9, "test": 15}


def test_a_function_file_in_a_package_imports_its_neighbours(tmp_path):
    package = tmp_path / "project" / "inner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package / "mine.py").write_text(SOURCE)
    (package / "load.py").write_text(
        "from .mine import arrays\nfrom . import mine as again\nimport mine\n"
        "def load():\n    assert mine is not again and __name__ == 'project.inner.load'\n"
        "    return arrays()\n"
    )
    assert prepared(str(package / "load.py") + ":load").class_names == ("ant", "bee", "cow")


def test_a_function_file_with_the_name_of_a_module_in_use(tmp_path):
    (tmp_path / "json.py").write_text(SOURCE)
    assert prepared("json.py:arrays").num_images["test"] == 12


# Nothing outlives its driver, nothing is left behind

DRIVER = (
    # What starts the tests in the background may have them ignore Ctrl-C, and this process, too.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "import sys; from pathlib import Path; from pipelines.data.custom.prepare import prepare_custom; "
    "from pipelines.data.custom.sources import custom_source; "
    "prepare_custom(custom_source('slow.py:load'), Path('data'))"
)
SLOW = """
import os, subprocess, sys, time
from pathlib import Path
def load():
    assert sys.stdin.read() == ""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path("pids.tmp").write_text(f"{os.getpid()} {child.pid}")
    Path("pids.tmp").rename("pids")
    time.sleep(600)
"""


def until(condition, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_process_of_a_function_dies_with_its_driver(tmp_path, number):
    (tmp_path / "slow.py").write_text(SLOW)
    with subprocess.Popen([sys.executable, "-c", DRIVER], stderr=subprocess.DEVNULL) as driver:
        until((tmp_path / "pids").exists, "the function was never called")
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert all(map(is_alive, pids))
        (left,) = Path("data").glob(".preparing-*[!k]")
        with unfinished_folder(Path("data")) as other:
            assert left.exists() and other != left, "one that is in use is left alone"
        driver.send_signal(number)
        driver.wait(60)
    until(lambda: not any(map(is_alive, pids)), "the function outlived its driver")
    with unfinished_folder(Path("data")):
        assert not left.exists()
    assert not list(Path("data").glob("*"))


def test_locks_that_were_left_behind_go_when_they_are_old(tmp_path):
    for name, age in (("a", 1), ("b", 2 * 24 * 3600)):
        lock = tmp_path / f".preparing-{name}.lock"
        lock.touch()
        os.utime(lock, (time.time() - age,) * 2)
    with unfinished_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".preparing-a.lock"]


def test_progress_is_shown_on_a_terminal_only(capsys, monkeypatch):
    print_prepared("preparing photos", 3, 3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for what, done, total in (
        ("calling mine", 12_000_000, None), ("preparing p", 64, 65), ("preparing p", 65, 65),
    ):  # fmt: skip
        print_prepared(what, done, total)
    assert capsys.readouterr().err == (
        "\rcalling mine: 12 MB so far\rpreparing p: 64 of 65 images\rpreparing p: 65 of 65 images\n"
    )
