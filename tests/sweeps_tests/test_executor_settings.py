"""What of a sweep's settings cannot be together on a cluster: refused before anything, without Ray."""

from __future__ import annotations

import pytest

from search_spaces.errors import InputError
from sweeps.settings import SweepSettings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"executor": "dask"}, "Unknown executor 'dask'"),
        ({"ray_address": "head:6379"}, "--ray-address goes with --executor ray"),
        ({"executor": "ray", "gpus": "0,1"}, "it must be all or none. Received: 0,1"),
        ({"executor": "ray", "pass_env": ("HF_TOKEN",)}, "none travels to the nodes .*HF_TOKEN"),
        ({"executor": "ray", "ray_address": "head"}, "--ray-address must be HOST:PORT"),
    ],
)
def test_it_is_one_line_with_the_way_out(settings, words):
    with pytest.raises(InputError, match=words) as refused:
        SweepSettings("mlp", **settings).validate()
    assert "\n" not in str(refused.value)
    SweepSettings("mlp", executor="ray", ray_address="head:6379").validate()
