"""The README does what it says: its space is a space, and its program calls what there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import keras_sweeps as ks
from search_spaces.user_spaces.reference import find_reference
from search_spaces.user_spaces.source import TunerSource
from search_spaces.user_spaces.space import user_space

PAGE = (Path(__file__).parents[2] / "README.md").read_text()
PROGRAM, SPACE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_space_has_ten_lines_and_is_a_space(tmp_path):
    assert len([line for line in SPACE.splitlines() if line.strip()]) <= 11  # With the import.
    (tmp_path / "my_space.py").write_text(SPACE)
    source = TunerSource(find_reference("my_space.py:build"), (8, 8, 1), 10)
    space = user_space(find_reference("my_space.py:build"), source.sample)
    assert {found.name for found in space.parameters} == {
        "num_blocks",
        "filters_0",
        "filters_1",
        "learning_rate",
    }


def test_the_program_calls_what_there_is():
    owners, named = {"ks": ks, "sweep": ks.Sweep}, set()
    for node in ast.walk(ast.parse(PROGRAM)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert hasattr(owners[node.value.id], node.attr), node.attr
            named.add(node.attr)
    assert {"run", "best_params", "trials_dataframe", "load_model"} <= named
    assert hasattr(ks.Model, "predict")
