"""Settings by option names: what Python, a file and the command line mean is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces.errors import InputError
from sweeps.cli.config_file import NOT_SETTINGS, setting_actions
from sweeps.cli.main import make_parser
from sweeps.cli.run_options import settings_from
from sweeps.options import OPTIONS, settings_given, settings_of
from sweeps.settings import SweepSettings


def test_values_of_python_are_those_of_the_command_line():
    tokens = [
        "--space", "cnn", "--trials", "7", "--epochs", "auto", "--timeout", "2h", "--workers", "2",
        "--no-baselines", "--set", "optimizer=adam,nadam", "--fix", "batch_norm=true", "--limit",
        "parameters<=200k", "--min-epochs", "1/9", "--trial-timeout", "90", "--gpus", "0,1",
        "--image-size", "32x48", "--early-stopping", "3", "--deterministic", "--keep-models", "0",
        "--finalists", "2", "--engine", "keras-tuner",
    ]  # fmt: skip
    found = settings_of(
        {
            "space": "cnn", "trials": 7, "epochs": None, "timeout": 7200.0, "workers": 2,
            "no_baselines": True, "set": {"optimizer": ["adam", "nadam"]},
            "fix": {"batch_norm": True}, "limit": {"parameters": "200k"}, "min_epochs": "1/9",
            "trial_timeout": 90, "gpus": [0, 1], "image_size": (32, 48), "early-stopping": 3,
            "deterministic": True, "keep_models": 0, "finalists": 2, "engine": "keras-tuner",
        }
    )  # fmt: skip
    assert found == settings_from(make_parser("run").parse_args(tokens))
    assert found.baselines is False and found.oracle == "hyperband"


def test_nothing_but_a_space_is_needed_and_none_is_the_default():
    assert settings_of({"space": "mlp"}) == SweepSettings("mlp")
    everything = dict.fromkeys(OPTIONS) | {"space": "mlp", "timeout": "auto"}
    assert settings_of(everything) == SweepSettings("mlp")
    assert settings_of({"space": "mlp", "timeout": None}).timeout_seconds is None


def test_a_path_may_be_one(tmp_path):
    found = settings_of({"dataset": Path("photos.npz"), "work_dir": tmp_path})
    assert found.dataset == str(tmp_path / "photos.npz") and found.work_dir == str(tmp_path)


def test_the_storage_of_the_environment_holds(monkeypatch):
    monkeypatch.setenv("SWEEPS_STORAGE", "sqlite:///other.db")
    assert settings_of({"space": "mlp"}).storage == "sqlite:///other.db"
    assert settings_of({"space": "mlp", "storage": "sqlite:///s.db"}).storage == "sqlite:///s.db"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"trails": 3}, r"Unknown option 'trails'\. Did you mean 'trials'\? Choose one of: "),
        ({"trials": 0}, r"'trials' must be a whole number of at least 1\. Received: 0\."),
        ({"trials": True}, r"'trials' must be a whole number of at least 1\. Received: True\."),
        ({"trials": 2.5}, r"whole number of at least 1\. Received: 2\.5\."),
        ({"workers": "many"}, r"Received: 'many' \('auto' is possible too\)\."),
        ({"timeout": -1}, r"'timeout' must be a positive duration such as 90s, 15m or 2h, or none"),
        ({"timeout": "5 minutes"}, r"Received: '5 minutes'\."),
        ({"min_epochs": 1.5}, r"'min_epochs' must be a whole number of epochs, or a part of one"),
        ({"offline": "yes"}, r"'offline' must be true or false\. Received: 'yes'\."),
        ({"retrain": "some"}, r"Unknown retrain 'some'\. Choose one of: all, none\."),
        ({"engine": "optunas"}, r"Unknown engine 'optunas'\. Did you mean 'optuna'\?"),
        ({"precision": "half"}, r"Unknown precision 'half'"),
        ({"objective": 3}, r"'objective' must be a text\. Received: 3\."),
        ({"set": 3}, r"'set' must be a mapping of parameters to values"),
        ({"set": "units"}, r"--set must be NAME=A,B or NAME=LOW\.\.HIGH\. Received: 'units'\."),
        ({"space": "cnm"}, r"Unknown space 'cnm'\. Did you mean 'cnn'\?"),
        ({"image_size": (2, 2)}, r"'image_size' must be height x width in pixels"),
    ],
)
def test_a_wrong_option_is_one_line_with_the_way_out(options, problem):
    with pytest.raises(InputError, match=problem):
        settings_of(options)


def test_every_setting_of_the_command_line_is_an_option():
    actions = setting_actions(make_parser("run"))
    assert {name.replace("-", "_") for name in actions} - {"quiet"} == set(OPTIONS)
    assert not set(OPTIONS) & NOT_SETTINGS


def test_given_options_are_known_by_their_settings():
    found = settings_given({"trials", "keep-models", "no_baselines", "early_stopping", "resume"})
    assert found == {"num_trials", "num_kept_models", "baselines", "early_stopping", "resume"}
