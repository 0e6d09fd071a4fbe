"""docs/python.md names what there is."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import keras_sweeps as ks
from sweeps.options import OPTIONS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_examples_call_what_there_is():
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    named, given = set(), set()
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = {"ks": ks, "sweep": ks.Sweep, "model": ks.Model}.get(node.value.id)
                if owner is not None:
                    assert hasattr(owner, node.attr), node.attr
                    named.add(node.attr)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ks.run", "sweep.resume"):
                given |= {keyword.arg for keyword in node.keywords}
    assert {"run", "load_sweep", "promote", "replay", "load_model", "finalize"} <= named
    assert len(given) > 8
    assert given <= set(OPTIONS) | set(inspect.signature(ks.run).parameters)
