"""HyperModels and `build(hp)` given as objects: how they are named, sent, and known again."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import guide_models
import keras_tuner
import numpy as np
import pytest

from search_spaces.errors import InputError
from search_spaces.registry import get_space, short_name, stored_name
from search_spaces.user_spaces.given import given_space
from search_spaces.user_spaces.loading import loaded_sources, received
from search_spaces.user_spaces.reference import GivenSpace, find_reference

ROOT = Path(__file__).parents[2]
PROGRAM = """
from search_spaces.user_spaces.given import given_space
SIZES, KINDS = {"small": [16, 32]}, frozenset({"relu", "tanh", "gelu", "elu"})
def dense(hp, name):
    return [hp.Choice(f"{name}_{kind}", SIZES["small"]) for kind in sorted(KINDS)]
def build(hp):
    return [dense(hp, name) for name in ("first", "second")]
class Base:
    depth = 2
    def build(self, hp):
        return build(hp), super().__repr__()
class Model(Base):
    def __init__(self, units=8):
        super().__init__()
        self.units, self.itself = units, self
    @staticmethod
    def loss(): return "mse"
    @property
    def size(self): return self.units + self.depth
print(given_space(build), given_space(Model), given_space(Model(4)), given_space(lambda hp: 1))
"""


def names(folder: Path, text: str, seed: str = "0") -> list[str]:
    """The names that a program gives its spaces, in a process with that hash seed."""
    folder.mkdir(exist_ok=True)
    (folder / "program.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, check=True, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
    )  # fmt: skip
    return done.stdout.split()


def test_names_follow_from_code_alone(tmp_path):
    found = names(tmp_path / "a", PROGRAM)
    assert [name.partition("@")[0] for name in found] == [
        "given:build", "given:Model", "given:Model", "given:lambda",
    ]  # fmt: skip
    assert len(set(found)) == 4 and all(len(name.partition("@")[2]) == 12 for name in found)
    # Another file, other lines, other chance: what a notebook is after its kernel was restarted.
    moved = "# A comment.\n\n" + PROGRAM.replace("\ndef build", "\n# Another.\ndef build")
    assert names(tmp_path / "b", moved, seed="7") == found


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("[16, 32]", "[16, 64]", "lambda"),  # A global that a function of a function uses.
        ('"first", "second"', '"first", "third"', "lambda"),
        ("sorted(KINDS)", "reversed(KINDS)", "lambda"),
        ("depth = 2", "depth = 3", "build lambda"),  # An attribute of the class that it is made of.
        ('return "mse"', 'return "mae"', "build lambda"),
        ("self.units + self.depth", "self.units", "build lambda"),
        ("Model(4)", "Model(5)", "build Model lambda"),
    ],
)
def test_whatever_is_referred_to_counts(tmp_path, old, new, same):
    assert PROGRAM.count(old) == 1
    before, after = names(tmp_path, PROGRAM), names(tmp_path, PROGRAM.replace(old, new))
    kept = [a.partition("@")[0].removeprefix("given:") for a, b in zip(before, after, strict=True)
            if a == b]  # fmt: skip
    assert kept == same.split()


def digest_of(held: object) -> str:
    def build(hp):
        return hp, held

    return given_space(build)


def test_everything_that_can_be_held_counts():
    class Registry:
        known: ClassVar[set] = set()

        def __init__(self):
            Registry.known.add(self)

    def widths(hp):
        return hp

    widths.tried = (8, 16)
    first = [
        digest_of(held)
        for held in (
            MappingProxyType({"w": (8, 16)}), MappingProxyType({"w": (32, 64)}),
            np.zeros(3), np.ones(3), Registry(), widths, b"a", b"b", {1: 2}.keys,
        )
    ]  # fmt: skip
    assert len(set(first)) == len(first)
    widths.tried = (32, 64)
    assert digest_of(widths) not in first


def test_what_keras_made_is_known_by_its_configuration_and_weights():
    import keras

    dense = keras.layers.Dense(3, name="d")
    dense.build((None, 2))
    model = keras.Sequential([keras.Input((2,)), dense], name="m")
    rate = keras.optimizers.Adam(0.1, name="a")
    names = [[digest_of(held) for held in (dense, model, rate)] for _ in range(2)]
    assert names[0] == names[1] and len(set(names[0])) == 3
    dense.set_weights([np.zeros((2, 3)), np.zeros(3)])
    assert digest_of(dense) != names[0][0] and digest_of(model) != names[0][1]


def test_a_class_that_moved_is_the_same(tmp_path):
    text = """
from search_spaces.user_spaces.given import given_space
def build(hp):
    class Inner:
        width = 3
    return Inner, hp
print(given_space(build))
"""
    found = names(tmp_path, text)
    assert names(tmp_path, "# One line more.\n" + text) == found
    assert names(tmp_path, text.replace("width = 3", "width = 4")) != found


def test_what_lies_in_a_file_is_named_as_that_file():
    named = given_space(guide_models.Convolutions)
    assert named == f"{Path(guide_models.__file__).resolve()}:Convolutions"
    assert not isinstance(named, GivenSpace)
    assert get_space(named).name == "guide_models-Convolutions"
    installed = given_space(keras_tuner.applications.HyperResNet)
    assert installed == "keras_tuner.src.applications.resnet:HyperResNet"
    assert find_reference(installed).root == ""


def test_an_object_arrives_by_value(monkeypatch):
    factor = 3

    def build(hp):
        return hp * factor

    named = given_space(build)
    assert isinstance(named, GivenSpace) and named.name == short_name(named) == "build"
    # As tasks carry it, with its value; as files store it, without.
    there = pickle.loads(pickle.dumps(named))
    assert there == named and type(there) is GivenSpace
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert received(there)(5) == 15
    assert stored_name(named) is named and find_reference(named).text is named
    assert get_space(named).name == "build" and get_space(named).sources == ()
    partly = given_space(functools.partial(build))
    assert partly.startswith("given:build@") and received(partly)(2) == 6


@pytest.mark.long
def test_modules_are_found_where_the_program_finds_them(tmp_path):
    (tmp_path / "beside.py").write_text("WIDTH = 7\n")
    (tmp_path / "program.py").write_text(
        "import pickle, sys, beside\n"
        "from search_spaces.user_spaces.given import given_space\n"
        "def build(hp): return beside.WIDTH\n"
        "pickle.dump(given_space(build), sys.stdout.buffer)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    sent = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], check=True, capture_output=True,
        env=environment,
    ).stdout  # fmt: skip
    code = (
        "import pickle, sys\n"
        "from search_spaces.user_spaces.loading import received\n"
        "space = pickle.load(sys.stdin.buffer)\n"
        "print(received(space)(None), space.bases)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=sent, check=True, capture_output=True, env=environment
    )
    assert done.stdout.decode() == f"7 {(str(tmp_path), str(ROOT))}\n"
    (tmp_path / "beside.py").unlink()
    done = subprocess.run(
        [sys.executable, "-c", code], input=sent, check=False, capture_output=True, env=environment
    )
    assert "The space 'build' cannot be opened in a worker process: ModuleNotFoundError: No " in (
        done.stderr.decode()
    )


def test_a_package_of_the_program_may_be_called_like_one_of_ours(tmp_path):
    """Also where a worker has ours already, as workers do."""
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").touch()
    (tmp_path / "pipelines" / "layers.py").write_text("def width(hp): return 7\n")
    (tmp_path / "program.py").write_text(
        "import pickle, sys\n"
        "from pipelines.layers import width\n"
        "from search_spaces.user_spaces.given import given_space\n"
        "def build(hp): return width(hp)\n"
        "pickle.dump(given_space(build), sys.stdout.buffer)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    sent = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], check=True, capture_output=True,
        env=environment,
    ).stdout  # fmt: skip
    code = (
        "import pickle, sys\n"
        "import pipelines.data.prepared as ours\n"
        "from search_spaces.user_spaces.loading import received\n"
        "print(received(pickle.load(sys.stdin.buffer))(None))\n"
        "import pipelines.data.splits, pipelines\n"
        "print(sys.modules['pipelines.data.prepared'] is ours)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=sent, check=True, capture_output=True,
        env=environment, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.decode() == "7\nTrue\n"


def test_the_programs_own_modules_are_its_sources(tmp_path, monkeypatch):
    """Wherever they lie on the path, and none that is installed."""
    (tmp_path / "lib").mkdir()
    module = tmp_path / "lib" / "own_part_of_a_space.py"
    module.write_text("KIND = 'relu'\n")
    monkeypatch.syspath_prepend(module.parent)
    import own_part_of_a_space as part

    def build(hp):
        return hp, part.KIND

    reference = find_reference(given_space(build))
    found = dict(loaded_sources(reference))
    assert str(module) in found
    assert not any("site-packages" in file or "/lib/python3" in file for file in found)
    module.write_text("KIND = 'tanh'\n")
    assert dict(loaded_sources(reference))[str(module)] != found[str(module)]


def test_what_cannot_be_sent_is_one_line():
    lock = threading.Lock()

    def build(hp):
        return hp, lock

    with pytest.raises(
        InputError, match=r"'build' cannot be sent to worker processes: TypeErr"
    ) as e:
        given_space(build)
    assert "\n" not in str(e.value) and "Make such objects inside 'build'" in str(e.value)
    for wrong in (3, ["cnn"], {"space": "cnn"}):
        with pytest.raises(InputError, match=r"^space must be a name, .* Received: "):
            given_space(wrong)


def test_a_name_without_its_object_is_refused():
    def build(hp):
        return hp

    text = "".join(given_space(build))  # As it is read back from a file.
    assert type(text) is str
    with pytest.raises(
        InputError, match=r"^The space 'build' is an object of the program that"
    ) as e:
        get_space(text)
    assert "\n" not in str(e.value) and ".resume(space=...)" in str(e.value)
