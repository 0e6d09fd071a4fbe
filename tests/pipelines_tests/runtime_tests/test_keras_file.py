"""A `keras.json` with which Keras cannot be imported is one line before anything starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipelines.runtime.keras_file import check_keras_file
from search_spaces.errors import InputError

BROKEN = {
    '{"floatx": "float8"}': "its floatx is 'float8', not one of float16, float32, float64",
    '{"image_data_format": "NHWC"}': "its image_data_format is 'NHWC'",
    '{"epsilon": 1}': "its epsilon is 1, not a number with a point",
    "[]": "it holds no object",
}


@pytest.mark.parametrize("text", BROKEN)
def test_what_keras_fails_with_is_named(tmp_path, text):
    path = tmp_path / "keras.json"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        check_keras_file({"KERAS_HOME": str(tmp_path)})
    assert f"{path}: {BROKEN[text]}" in str(refused.value)


@pytest.mark.parametrize("text", ["{", "", '{"floatx": "float16", "backend": "theano"}'])
def test_what_keras_takes_is_none_of_our_business(tmp_path, text):
    (tmp_path / "keras.json").write_text(text)
    check_keras_file({"KERAS_HOME": str(tmp_path)})
    check_keras_file({"KERAS_HOME": str(tmp_path / "nowhere")})


def test_keras_does_fail_with_them(tmp_path, monkeypatch):
    """Else the check would refuse what works."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    for text in BROKEN:
        (tmp_path / "keras.json").write_text(text)
        code = "import keras.src.backend.config"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert done.returncode != 0, text
