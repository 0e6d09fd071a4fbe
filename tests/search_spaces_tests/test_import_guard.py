"""Modules that train or search in their body: prevented, and said."""

from __future__ import annotations

import re

import keras
import keras_tuner
import pytest

from search_spaces.errors import InputError
from search_spaces.user_spaces.reference import find_reference
from search_spaces.user_spaces.source import TunerSource

HEAD = """import keras, keras_tuner
from pathlib import Path

def build(hp):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255),
                              keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    model.compile(hp.Choice("optimizer", ["adam", "sgd"]), "sparse_categorical_crossentropy")
    return model

"""
SEARCH = """tuner = keras_tuner.RandomSearch(build, "val_accuracy", 3, directory=Path(__file__).parent)
tuner.search_space_summary()
tuner.search([[0]], [0])
Path(__file__).with_name("searched").touch()
"""
FIT = """try:
    build(keras_tuner.HyperParameters()).fit([[0]], [0])
except Exception:
    Path(__file__).with_name("searched").touch()
"""
SWEEP = "import keras_sweeps as ks\nks.run(__file__ + ':build', 'digits', name='again')\n"


def source(folder, text, name="build"):
    file = folder / "tutorial.py"
    file.write_text(HEAD + text)
    return TunerSource(find_reference(f"{file}:{name}"), (8, 8, 1), 3)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (SEARCH, r"tutorial.py makes a RandomSearch tuner \(line 10\) as soon as it is"),
        (FIT, r"tutorial.py trains a model with fit \(line 11\) as soon as it is imported"),
        (SWEEP, r"tutorial.py runs a sweep \(line 11\) as soon as it is imported"),
    ],
)
def test_what_a_script_defines_before_it_searches_can_be_used(tmp_path, body, words):
    before = keras_tuner.Tuner.__init__, keras.Model.fit
    for _ in range(2):  # In a process that has it imported, too.
        (note,) = source(tmp_path, body).notes
        assert re.search(words, note) and "__name__ == '__main__'" in note
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == [
        "tutorial.py"
    ]
    assert (keras_tuner.Tuner.__init__, keras.Model.fit) == before


def test_what_is_defined_after_the_search_is_one_line(tmp_path):
    late = SEARCH + "\nclass Late(keras_tuner.HyperModel):\n    pass\n"
    with pytest.raises(InputError, match="'Late' is not defined in tutorial.py before it makes"):
        source(tmp_path, late, "Late")


def test_a_script_that_searches_as_a_script_only_has_no_note(tmp_path):
    body = "if __name__ == '__main__':\n    " + SEARCH.replace("\n", "\n    ")
    assert source(tmp_path, body).notes == []


def test_a_helper_that_trains_ends_the_import_where_it_is_imported(tmp_path):
    (tmp_path / "helper_that_fits.py").write_text("import keras\nkeras.Sequential().fit([0])\n")
    found = source(tmp_path, "import helper_that_fits\n")
    assert "trains a model with fit (line 10)" in found.notes[0]
