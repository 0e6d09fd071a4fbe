"""A file that is replaced is the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import json

import pytest

from pipelines.runtime.filesystem import replaced_atomically, write_json_atomically


def test_a_json_file_is_replaced_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "sweep.json"
    for body in ({"name": "grün"}, {"name": "grün", "trials": [1, 2]}):
        write_json_atomically(path, body)
        assert json.loads(path.read_text()) == body
    assert path.read_text() == json.dumps(body, indent=1)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("no room"), KeyboardInterrupt()])
def test_a_write_that_breaks_off_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(type(error)), replaced_atomically(path) as file:
        file.write(b"half of the n")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_json_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file"
    write_json_atomically(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json_atomically(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
