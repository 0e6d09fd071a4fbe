"""Settings as a file: the same options, the same rules, the command line wins."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.training.options import TrainingOptions
from sweeps.cli.config_file import config_schema, config_text, config_tokens, setting_actions
from sweeps.cli.main import COMMANDS, main, make_parser
from sweeps.cli.run_options import settings_from
from sweeps.option_values import path as as_option
from sweeps.settings import SweepSettings
from sweeps.setup.resolved import option_values


def parsed(tmp_path, text: str, *options: str) -> SweepSettings:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    parser = make_parser("run")
    tokens = config_tokens(parser, ["--config", str(path), *options])
    return settings_from(parser.parse_args(tokens))


def test_a_file_gives_what_the_options_give(tmp_path):
    text = """
space: cnn
trials: 7
timeout: 2h        # a comment
no_baselines: true
prune-baselines: false
target: val_accuracy>=0.995
workers: auto
max-total-epochs: null
"""
    found = parsed(tmp_path, text)
    options = ["--space", "cnn", "--trials", "7", "--timeout", "2h", "--no-baselines", "--target",
               "val_accuracy>=0.995"]  # fmt: skip
    assert found == settings_from(make_parser("run").parse_args(options))


def test_a_file_narrows_the_space_and_the_command_line_wins(tmp_path):
    text = """
space: cnn
set:
  optimizer: [adam, adamw]
  filters_0: 16..32
fix:
  batch_norm_0: true
limit:
  parameters: 200k
"""
    found = parsed(tmp_path, text)
    assert found.limits == ("parameters<=200k",)
    assert found.narrowed == ("optimizer=adam,adamw", "filters_0=16..32")
    assert found.fixed == ("batch_norm_0=true",)
    found = parsed(tmp_path, text, "--set", "optimizer=sgd")
    assert found.narrowing == ("filters_0=16..32", "optimizer=sgd", "batch_norm_0=true")
    assert parsed(tmp_path, "space: cnn\nset: null\n").narrowing == ()


def test_the_command_line_wins(tmp_path):
    found = parsed(tmp_path, "space: cnn\ntrials: 7\nseed: 1\n", "--trials", "9")
    assert (found.num_trials, found.seed, found.space) == (9, 1, "cnn")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("space: cnn\ntrails: 3", "line 2: Unknown setting 'trails'. Did you mean 'trials'?"),
        ("\n\ntrials: 0", "line 3: 'trials' must be a whole number of at least 1. Received: '0'"),
        ("trials: many", "line 1: 'trials' must be a whole number"),
        ("seed: 1.5", "line 1: 'seed' must be a whole number of at least 0. Received: '1.5'"),
        ("space: [cnn]", "line 1: 'space' must be a single value"),
        ("offline: maybe", "line 1: 'offline' must be true or false. Received: 'maybe'"),
        ("retrain: some", "line 1: Unknown retrain 'some'"),
        ("seed: 1\nseed: 2", "line 2: A setting is given once"),
        ("resume: true", "line 1: A file holds settings. Received: 'resume'"),
        ("config: other.yaml", "belongs on the command line"),
        ("space: 'cnn", "must be a YAML file"),
        ("- space", "one `name: value` a line"),
        ("timeout: -5m", "line 1: 'timeout' must be a positive duration"),
        ("set: optimizer", "line 1: 'set' must hold parameters, one `name: values` a line"),
        ("fix:\n  a: {b: 1}", "'fix' must hold a value, a list or a range for each parameter"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, capsys, text, problem):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    assert main(["run", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert problem in error and error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sweep.yaml"]


def test_what_only_the_settings_know_is_checked_as_well(tmp_path, capsys):
    path = tmp_path / "sweep.yaml"
    for line, words in (
        ("sampler: tbe", "Did you mean 'tpe'?"),
        ("pruner: ahsa", "Did you mean 'asha'?"),
        ("objective: val_acuracy", "Did you mean 'val_accuracy'?"),
        ("target: val_loss<=0.1", "--target must be the objective"),
        ("name: ''", "'name' must be a text that is not empty"),
        ("dataset: nowhere/", "nowhere"),
        ("set: {optimizer: [adam, foo]}", "can be narrowed to values in"),
        ("oracle: grid", "--oracle goes with --engine keras-tuner"),
    ):
        path.write_text(f"space: cnn\ntrials: 3\n{line}\n")
        assert main(["run", "--config", str(path)]) == 2
        error = capsys.readouterr().err
        assert f"{path}, line 3: " in error and words in error and error.count("\n") == 1
    path.write_text("trials: 3\nspace: cnm\n")
    assert main(["run", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path}, line 2: " in error and "Did you mean 'cnn'?" in error
    path.write_text("trials: 3\nspace: nowhere.py:build\n")
    assert main(["run", "--config", str(path)]) == 2
    assert f"{path}, line 2: " in capsys.readouterr().err
    path.write_text("space: cnn\n")
    assert main(["run", "--config", str(path), "--sampler", "tbe"]) == 2
    assert str(path) not in capsys.readouterr().err, "the command line's own mistake"


def test_the_command_line_undoes_a_switch_and_a_rule(tmp_path):
    text = """
space: cnn
deterministic: true
no-baselines: true
set:
  filters_0: 16..32
fix:
  optimizer: sgd
"""
    found = parsed(tmp_path, text, "--no-deterministic", "--baselines")
    assert not found.training.deterministic and found.baselines
    found = parsed(tmp_path, text, "--set", "optimizer=adam,adamw", "--fix=filters_0=16")
    assert found.narrowing == ("optimizer=adam,adamw", "filters_0=16")
    assert found.training.deterministic and not found.baselines


def test_two_rules_for_one_parameter_are_refused(tmp_path, capsys):
    both = ["run", "--space", "cnn", "--set", "optimizer=adam,sgd", "--fix", "optimizer=sgd"]
    assert main(both) == 2
    assert "both name 'optimizer'" in capsys.readouterr().err
    path = tmp_path / "sweep.yaml"
    path.write_text("space: cnn\nset:\n  optimizer: [adam, sgd]\n  optimizer: sgd\n")
    assert main(["run", "--config", str(path)]) == 2
    assert "line 4: 'optimizer' is given twice" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_one_line(capsys):
    assert main(["run", "--config", "nothing.yaml"]) == 2
    assert "Received: nothing.yaml (it does not exist)" in capsys.readouterr().err
    assert main(["run", "--config"]) == 2


def test_an_empty_file_changes_nothing(tmp_path):
    assert parsed(tmp_path, "# nothing\n", "--space", "mlp") == SweepSettings("mlp")


def is_given(path: str) -> bool:
    """Whether the option takes a path, and means it as it stands: blanks and homes it does not."""
    try:
        return as_option(path) == path
    except ValueError:
        return False


SETTINGS = st.builds(
    SweepSettings,
    space=st.sampled_from(["cnn", "mlp"]),
    num_trials=st.integers(1, 10**6),
    num_epochs=st.integers(1, 1000),
    gpus=st.sampled_from(["all", "none", "0", "0,1"]),
    trials_per_gpu=st.none() | st.integers(1, 64),
    timeout_seconds=st.none() | st.floats(0.001, 1e6).map(lambda x: float(f"{x:g}")),
    seed=st.integers(0, 2**31 - 1),
    baselines=st.booleans(),
    protect_baselines=st.booleans(),
    num_workers=st.none() | st.integers(1, 64),
    stall_seconds=st.none() | st.integers(1, 10**6).map(float),
    target=st.none() | st.just("val_accuracy>=0.9"),
    offline=st.booleans(),
    num_finalists=st.integers(1, 9),
    retrain=st.sampled_from(["all", "none"]),
    image_size=st.none() | st.just("32x48"),
    resize=st.sampled_from(["fit", "crop", "stretch"]),
    color=st.sampled_from(["auto", "grey", "rgb"]),
    broken=st.sampled_from(["refuse", "skip"]),
    training=st.builds(
        TrainingOptions,
        early_stopping=st.none() | st.integers(1, 100),
        class_weights=st.sampled_from(["none", "balanced"]),
        precision=st.sampled_from(["float32", "mixed_bfloat16", "auto"]),
        jit=st.sampled_from(["auto", "on", "off"]),
        deterministic=st.booleans(),
    ),
    name=st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    narrowed=st.sampled_from([(), ("optimizer=adam,sgd", "units_0=64..128")]),
    fixed=st.sampled_from([(), ("batch_norm_0=true",)]),
    limits=st.sampled_from([(), ("parameters<=200k",), ("multiply_adds<=12M", "model_bytes<=1M")]),
    min_epochs=st.sampled_from([None, 1, 2]),
    work_dir=st.text(st.characters(blacklist_categories=["C"]), min_size=1).filter(is_given),
)


@settings(max_examples=150, deadline=None)
@given(SETTINGS)
def test_any_settings_come_back_from_their_file(tmp_path_factory, data_cache, wanted):
    folder = tmp_path_factory.mktemp("config")
    text = config_text(make_parser("run"), option_values(wanted, data_cache))
    found = parsed(folder, text)
    resolved = {"dataset", "tracking_uri", "experiment"}
    assert replace(found, **{name: getattr(wanted, name) for name in resolved}) == wanted
    assert found.dataset == data_cache.name


@pytest.fixture(scope="session")
def data_cache(tiny_data):
    return tiny_data


def test_a_sweeps_file_starts_the_same_sweep(tmp_path, capsys):
    options = ["run", "--space", "mlp", "--dataset", "digits", "--epochs", "auto", "--seed", "4"]
    assert main([*options, "--write-config"]) == 0
    text = capsys.readouterr().out
    assert "epochs: 30" in text and 'timeout: "180s"' in text and 'dataset: "digits"' in text
    (tmp_path / "sweep.yaml").write_text(text)
    assert main(["run", "--config", "sweep.yaml", "--write-config"]) == 0
    assert capsys.readouterr().out == text
    assert not (tmp_path / "optuna.db").exists()


def test_passwords_are_not_in_it(capsys, tmp_path):
    (tmp_path / "in.yaml").write_text(
        "space: mlp\ndataset: digits\nstorage: postgresql://me:secret@h/n\n"
    )
    assert main(["run", "--config", "in.yaml", "--write-config"]) == 0
    text = capsys.readouterr().out
    assert "secret" not in text and "postgresql://me:***@h/n" in text


def test_the_schema_knows_every_setting(capsys):
    assert main(["run", "--config-schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema == config_schema(make_parser("run"))
    assert set(schema["properties"]) == set(setting_actions(make_parser("run")))
    assert schema["properties"]["trials"]["minimum"] == 1
    assert schema["properties"]["offline"]["type"] == "boolean"
    assert {"const": "auto"} in schema["properties"]["epochs"]["anyOf"]
    assert schema["properties"]["retrain"]["enum"] == ["all", "none"]
    assert all(entry["description"] for entry in schema["properties"].values())
    assert schema["additionalProperties"] is False
    assert schema["properties"]["set"]["type"] == "object"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_learns_commands_and_options(capsys, tmp_path, shell):
    assert main(["completion", "--shell", shell]) == 0
    script = capsys.readouterr().out
    for word in (*COMMANDS, "--finalist-seeds", "--rollback", "--polarity"):
        assert word in script
    if shutil.which(shell):
        (tmp_path / "completion").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "completion")], check=True)


def test_bash_completes_an_option(tmp_path, capsys):
    if not shutil.which("bash"):
        pytest.skip("no bash")
    main(["completion", "--shell", "bash"])
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    code = (
        "source completion; COMP_WORDS=(keras-sweeps run --finalist-s); COMP_CWORD=2; "
        "_shtab_keras_sweeps keras-sweeps --finalist-s run; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "--finalist-seeds" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("given", "line"), [([], "# objective:"), (["--objective", "f1:max"], 'objective: "f1:max"')]
)
def test_the_objective_of_a_custom_space_is_left_to_it_unless_it_was_asked_for(
    capsys, tmp_path, given, line
):
    (tmp_path / "space.py").write_text("def build(hp): pass\n")
    options = ["run", "--space", f"{tmp_path}/space.py:build", "--dataset", "digits"]
    assert main([*options, *given, "--write-config"]) == 0
    assert line in capsys.readouterr().out.splitlines()
