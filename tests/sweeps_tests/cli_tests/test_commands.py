"""The commands as a person types them: help, wrong options, exit statuses, first output."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import fake_executor
import pytest

from search_spaces.errors import InputError
from sweeps.cli.main import COMMANDS, main, make_parser
from sweeps.executors.base import Slot
from sweeps.option_values import timeout
from sweeps.reporting.console import warnings_shown
from sweeps.resources.gpus import Gpu
from sweeps.resources.machine import Machine, allot
from sweeps.settings import DEFAULT_NUM_TRIALS, SweepSettings, budget_for
from sweeps.setup.data import prepare_data

ROOT = Path(__file__).parents[3]
GIGABYTE = 2**30


def nothing_written() -> bool:
    return not any(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--space", "cnm"], "Unknown space 'cnm'. Did you mean 'cnn'? Choose one of: cnn, mlp, cnn_blocks, mlp_layers."),
        (["--space", "cnn", "--sampler", "tpa"], "Did you mean 'tpe'?"),
        (["--space", "cnn", "--dataset", "mnits"], "Did you mean 'mnist'?"),
        (["--space", "cnn", "--objective", "val_acc"], "Choose one of: val_accuracy, val_loss, val_macro_f1, val_balanced"),
        (["--space", "cnn", "--trials", "0"], "must be a whole number of at least 1. Received: '0'"),
        (["--space", "cnn", "--seed", "4294967296"], "must be a whole number of at most 2147483647"),
        (["--space", "cnn", "--set", "lr="], "Unknown parameter of space 'cnn' 'lr'. Did you mean "
         "'learning_rate'?"),
        (["--space", "cnn", "--set", "learning_rate="], "--set must be NAME=A,B or NAME=LOW..HIGH."),
        (["--space", "cnn", "--fix", "bs=3"], "Did you mean 'batch_size'?"),
        (["--space", "cnn", "--warm-start", "x"], "'--warm-start'. Did you mean '--resume'?"),
        (["--space", "cnn", "--lr=0.1"], "'--lr'. Did you mean '--fix learning_rate=VALUE'?"),
        (["--space", "cnn", "--zzz"], "Unknown option '--zzz'. Choose one of"),
        (["--space", "cnn", "--colour", "grey"], "Did you mean '--color'?"),
        (["--space", "cnn", "--trials", "-3"], "at least 1"),
        (["--space", "cnn", "--epochs", "2.5"], "at least 1. Received: '2.5' ('auto' is possible"),
        (["--space", "cnn", "--timeout", "-5m"], "expected one argument"),
        (["--space", "cnn", "--timeout", "0"], "positive duration"),
        (["--space", "cnn", "--workers", "none"], "at least 1"),
        (["--space", "cnn", "--seed", "-1"], "at least 0"),
        (["--space", "cnn", "--name", "../up"], "--name must be at most 100 letters"),
        (["--space", "cnn", "--trails", "3"], "Unknown option '--trails'. Did you mean '--trials'?"),
        (["--space", "cnn", "--tracking-uri", "http://127.0.0.1:9"], "does not answer at /health"),
        (["--space", "cnn", "--storage", "nonsense", "--dataset", "digits"], "cannot be reached"),
        (["--space", "cnn", "--work-dir", "/proc/nothing/here"], "must be a folder that can be written"),
        (["--space", "cnn", "--storage", "sqlite:///no/such/folder/o.db"], "existing folder"),
        (["--space", "cnn", "--tracking-uri", "http://[bad"], "must be an address that can be read"),
        (["--space", "cnn", "--storage", "postgresql+psycopg://[bad"], "cannot be reached"),
        (["--space", "cnn", "--storage", "sqlite:///:memory:"], "--storage must name a file"),
        (["--space", "cnn", "--storage", "sqlite:////tmp"], "but it is a folder"),
        (["--space", "cnn", "--tracking-uri", "nonsense://x"], "must be a database or a server"),
        (["--baselines-only", "--name", "../../up"], "--name must be"),
        ([], "--space is required"),
        (["--describe"], "--describe needs a space"),
        (["--describe", "cnm"], "Did you mean 'cnn'?"),
        (["--baselines-only", "--no-baselines"], "exclude each other"),
        (["--baselines-only", "--space", "x"], "Unknown space"),
        (["--space", "cnn", "--pruner", "ahsa"], "Did you mean 'asha'?"),
        (["--space", "cnn", "--reduction-factor", "1"], "at least 2"),
        (["--space", "cnn", "--min-epochs", "5", "--epochs", "3"], "--min-epochs must be at most"),
        (["--space", "cnn", "--min-epochs", "1.5"], "a part of one as a fraction"),
        (["--space", "cnn", "--min-epochs", "1/3", "--pruner", "median"], "a pruner with rungs"),
        (["--space", "cnn", "--limit", "size<=3"], "--limit must be QUANTITY<=NUMBER"),
        (["--space", "cnn", "--limit", "latency_ms<=5", "--engine", "keras-tuner"], "--engine optuna"),
        (["--space", "cnn", "--target", "0.995"], "'val_accuracy>=0.995'. Received: '0.995'"),
        (["--space", "cnn", "--target", "val_accuracy<=0.9"], "--target must be the objective, >="),
        (["--space", "cnn", "--target", "val_loss<=0.1"], "--target must be the objective"),
        (["--space", "cnn", "--trial-timeout", "0s"], "positive duration"),
        (["--space", "cnn", "--max-total-epochs", "0"], "at least 1"),
        (["--space", "cnn", "--no-improvement", "0"], "at least 1"),
        (["--resume"], "There is no unfinished sweep in"),
        (["--resume", "--name", "x"], "There is no sweep 'x' in"),
        (["--resume", "--dry-run"], "exclude each other"),
        (["--baselines-only", "--dry-run"], "exclude each other"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_2_and_nothing_is_written(capsys, options, rule):
    assert main(["run", *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert rule in captured.err
    assert nothing_written()


def test_an_unknown_command_suggests_the_nearest(capsys):
    assert main(["rum"]) == 2
    assert "Did you mean 'run'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_one_help_style(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text and "exit status: 0 done" in text
    assert len([line for line in text.splitlines() if line.startswith("  --")]) >= 1


def printed_help(capsys, *options: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["run", *options])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("prog", [None, "python sweeps/run.py"])
def test_the_ten_options_most_people_need_fit_on_a_screen(capsys, monkeypatch, prog):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["run", "--help"], prog)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30 and max(map(len, lines)) <= 80
    shown = {line.split()[0] for line in lines if line.startswith("  --")}
    assert shown == {
        "--space", "--dataset", "--trials", "--epochs", "--timeout", "--objective", "--seed",
        "--name", "--workers", "--resume", "--help-all",
    }  # fmt: skip


def test_the_long_help_has_every_option_in_a_named_group(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text, parser = printed_help(capsys, "--help-all"), make_parser("run")
    options = {
        name for a in parser._actions if a.help != argparse.SUPPRESS for name in a.option_strings
    }
    groups = dict(re.findall(r"^(\w[^\n]*):\n((?:  .*\n)+)", text, re.MULTILINE))
    named = {
        name: title
        for title, lines in groups.items()
        for line in re.findall(r"^  (-.*)", lines, re.MULTILINE)
        for name in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line.split("   ")[0])
    }
    assert set(named) == options and len(options) > 55
    assert {"main options", "pruning", "GPUs", "storage and tracking"} <= set(named.values())
    assert not {"options", "optional arguments"} & set(named.values())
    assert named["--resume"] == "main options" and named["--retries"] == "failures and resuming"
    assert "--baselines-only" in groups["examples"]


@pytest.mark.parametrize("columns", ["0", "1", "40", "200", "wide"])
def test_the_help_fits_any_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert "--space NAME" in printed_help(capsys, "--help")
    assert "--keep-models N" in printed_help(capsys, "--help-all")


@pytest.mark.parametrize(
    ("options", "where"),
    [
        (["run", "--epochs", "few"], "See keras-sweeps run --help."),
        (["run", "--keep-models", "few"], "See keras-sweeps run --help-all."),
        (["run", "--quiet=yes"], "See keras-sweeps run --help-all."),
        (["sync", "--work-dir"], "See keras-sweeps sync --help."),
    ],
)
def test_an_error_names_the_help_that_has_the_option(capsys, options, where):
    assert main(options) == 2
    assert capsys.readouterr().err.endswith(f"{where}\n")


def test_the_long_help_is_asked_for_on_the_command_line(capsys):
    Path("sweep.yaml").write_text("space: cnn\nhelp-all: true\n")
    assert main(["run", "--config", "sweep.yaml"]) == 2
    assert "'help-all', which belongs on the command line" in capsys.readouterr().err


FOLDERS = {
    "explore": "pipelines", "predict": "pipelines", "server": "tracking", "migrate": "tracking"
}  # fmt: skip
INSTALLED_ONLY = {
    "list", "show", "compare", "export", "report", "open", "watch", "stop", "add", "note", "delete", "clean",
    "completion",  # Scripts are not completed.
}  # fmt: skip
SCRIPTS = [
    f"{FOLDERS.get(command, 'sweeps')}/{command}.py"
    for command in COMMANDS
    if command not in INSTALLED_ONLY
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_and_entry_point_are_one(script):
    done = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True, check=True
    )
    assert f"usage: python {script}" in done.stdout


def test_a_clone_that_is_not_installed_says_so(tmp_path):
    for script in SCRIPTS:
        done = subprocess.run(
            [sys.executable, "-S", "-E", str(ROOT / script)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert "keras-sweeps must be installed first" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_used_name_is_refused_before_anything_is_started(capsys):
    import optuna

    from sweeps.engines.optuna_study.storage import open_storage

    optuna.create_study(storage=open_storage("sqlite:///optuna.db"), study_name="mine")
    assert main(["run", "--space", "cnn", "--dataset", "digits", "--name", "mine"]) == 2
    assert "The name 'mine' is already used" in capsys.readouterr().err
    assert not Path("mlflow.db").exists() and not Path(".sweeps").exists()


def test_a_corrupt_file_is_refused_also_without_dataset(capsys, monkeypatch, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "mnist.npz").write_bytes(b"PK\x03\x04 torn")
    monkeypatch.setenv("SWEEPS_DATA_DIR", str(folder))
    for options in ([], ["--dataset", "mnist"]):
        assert main(["run", "--space", "cnn", *options]) == 2
        assert "is corrupt or truncated" in capsys.readouterr().err
    assert not Path("mlflow.db").exists()


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr("pipelines.data.builtin.KERAS_URL", "http://127.0.0.1:9/")


def test_an_explicit_mnist_never_falls_back(capsys, no_network):
    assert main(["run", "--space", "cnn", "--dataset", "mnist"]) == 2
    error = capsys.readouterr().err
    for way in ("SWEEPS_DATA_DIR", "--dataset digits", "network"):
        assert way in error
    assert not Path("mlflow.db").exists()


def test_without_dataset_the_digits_stand_in_and_it_is_said_why(capsys, no_network, tmp_path):
    with warnings_shown():
        data = prepare_data(None, tmp_path / "data")
    assert data.name == "digits"
    warning = capsys.readouterr().err
    for part in ("WARNING: using the bundled digits", "127.0.0.1", "SWEEPS_DATA_DIR"):
        assert part in warning


MOST_MODULES = 540
"""In November 2026 there were 490."""


def test_the_first_output_needs_none_of_the_heavy_libraries(no_network):
    """What is printed first is printed before TensorFlow, MLflow or pandas are imported, and
    before more modules than a second allows: counted, as seconds depend on the machine.
    """
    code = (
        "import builtins, sys\n"
        "original = builtins.print\n"
        "def first(*args, **kwargs):\n"
        "    heavy = {'tensorflow', 'keras', 'mlflow', 'pandas', 'optuna', 'sklearn'}\n"
        "    original(sorted(heavy & set(sys.modules)), args[0])\n"
        "    original(*sorted(set(sys.modules) - before))\n"
        "    sys.exit(0)\n"
        "before = set(sys.modules)\n"
        "builtins.print = first\n"
        "from sweeps.cli.main import main\n"
        "main(['run', '--space', 'cnn'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line, modules = done.stdout.splitlines()
    assert line.startswith("[] keras-sweeps: space cnn")
    found = modules.split()
    packages = Counter(name.partition(".")[0] for name in found).most_common(8)
    assert 200 < len(found) <= MOST_MODULES, (
        f"{len(found)} modules before the first output: an import at the top of a module that only "
        f"trials need, or a library that has grown. Most of them: {packages}"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "allowed"),
    [
        # rich before 15 imports attrs where it is installed.
        (["run", "--describe", "cnn"], 0, {"PIL", "attr", "numpy", "rich"}),
        (["run", "--list-spaces"], 0, {"PIL", "attr", "numpy", "rich"}),
        (["run", "--help"], 0, {"numpy"}),
        (["run", "--help-all"], 0, {"numpy"}),
        (["run", "--space", "cnn", "--no-such-option"], 2, {"numpy"}),
        (["run", "--space", "cnn", "--trials", "many"], 2, {"numpy"}),
        (["run", "--space", "no-such-space"], 2, {"numpy"}),
        (["no-such-command"], 2, {"numpy"}),
    ],
)
def test_what_trains_nothing_imports_little(arguments, status, allowed):
    """Every library that is imported on the way to a short answer is waited for."""
    code = (
        "import json, sys\n"
        "before = set(sys.modules)\n"
        "from sweeps.cli.main import main\n"
        "try:\n"
        "    status = main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    status = end.code\n"
        "found = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "found -= set(sys.stdlib_module_names)\n"
        "open('found.json', 'w').write(json.dumps([status, sorted(found)]))\n"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=True)
    found_status, found = json.loads(Path("found.json").read_text())
    ours = {"pipelines", "search_spaces", "sweeps", "tracking"}
    assert found_status == status
    assert set(found) - ours <= allowed


def test_explore_prints_tables_and_draws_a_new_picture(capsys):
    assert main(["explore", "--dataset", "digits", "--picture", "look.png"]) == 0
    text = capsys.readouterr().out
    for part in ("28x28x1", "uint8", "0 to 255", "1,149", "sha256"):
        assert part in text
    assert Path("look.png").read_bytes().startswith(b"\x89PNG")
    assert main(["explore", "--dataset", "digits", "--picture", "look.png"]) == 2
    assert "must name a new file" in capsys.readouterr().err


def test_a_command_draws_whatever_backend_a_notebook_names():
    command = [sys.executable, str(ROOT / "pipelines" / "explore.py")]
    environment = {**os.environ, "MPLBACKEND": "module://that_is.not_installed"}
    done = subprocess.run(
        [*command, "--dataset", "digits", "--picture", "look.png"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("look.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("none", None), ("auto", "auto")],
)
def test_durations(text, seconds):
    assert timeout(text) == seconds


@pytest.mark.parametrize(
    ("machine", "workers", "threads", "slots"),
    [
        (Machine(2, 24 * GIGABYTE), None, None, [(2, None)]),
        (Machine(1, 4 * GIGABYTE), None, None, [(1, None)]),
        (Machine(16, 64 * GIGABYTE), None, None, [(4, None)] * 4),
        (Machine(16, 4 * GIGABYTE), None, None, [(4, None)] * 2),
        (Machine(2, 24 * GIGABYTE), 2, None, [(1, None)] * 2),
        (Machine(8, 24 * GIGABYTE), 2, 3, [(3, None)] * 2),
        (Machine(8, 24 * GIGABYTE, (Gpu("0", "H200"), Gpu("1", "H200"))), None, None,
         [(4, "0"), (4, "1")]),
        (Machine(8, 24 * GIGABYTE, (Gpu("2", "H200"),)), 1, None, [(8, "2")]),
    ],
)  # fmt: skip
def test_the_machine_is_divided(machine, workers, threads, slots):
    allotment = allot(machine, workers, threads)
    assert [(s.num_threads, s.gpu) for s in allotment.slots] == slots
    assert str(len(slots)) in allotment.reason


def test_more_trials_than_gpus_are_refused():
    with pytest.raises(InputError, match="at most the number of GPUs"):
        allot(Machine(8, 24 * GIGABYTE, (Gpu("0", "A"),)), 2, None)


def test_the_budget_fits_the_data():
    settings = SweepSettings("cnn")
    large, small = budget_for(settings, 50_000), budget_for(settings, 1_000)
    assert (large.num_epochs, large.timeout_seconds, large.num_trials) == (8, 15 * 60, None)
    assert large.rungs.text == "0.33, 1, 3, 8 epochs"
    assert (small.num_epochs, small.timeout_seconds, small.num_trials) == (30, 3 * 60, None)
    assert small.rungs.text == "10, 30 epochs"
    asked = budget_for(SweepSettings("cnn", num_epochs=7, timeout_seconds=None), 1_000)
    assert (asked.num_epochs, asked.timeout_seconds) == (7, None)
    assert asked.num_trials == DEFAULT_NUM_TRIALS, "something must end a sweep"
    earlier = budget_for(SweepSettings("cnn", defaults=1, min_epochs=1), 50_000)
    assert (earlier.num_epochs, earlier.rungs.text) == (4, "1, 4 epochs")


@pytest.mark.parametrize("command", ["sync", "doctor"])
def test_commands_on_sweeps_say_when_there_is_none(capsys, command):
    assert main([command]) == 2
    assert "There is no sweep in" in capsys.readouterr().err
    assert main([command, "nightly"]) == 2
    assert "There is no sweep 'nightly' in" in capsys.readouterr().err
    assert nothing_written()


def test_a_target_is_read_with_its_direction():
    from pipelines.objectives import OBJECTIVES, parse_target
    from sweeps.driver.plan import StopRules

    accuracy, loss = OBJECTIVES["val_accuracy"], OBJECTIVES["val_loss"]
    assert parse_target(" val_accuracy >= 0.995 ", accuracy) == 0.995
    assert parse_target("val_loss<=3e-2", loss) == 0.03
    assert StopRules(target=0.9).meets_target(accuracy, 0.9)
    assert not StopRules(target=0.9).meets_target(accuracy, 0.89)
    assert StopRules(target=0.1).meets_target(loss, 0.05)
    assert not StopRules().meets_target(accuracy, 1.0)


def silent_job(task, report, slot):
    report("ready")
    threading.Event().wait(60)


def test_a_worker_that_says_nothing_any_more_ends_a_command(monkeypatch, tmp_path):
    from sweeps.interrupts import Interrupts
    from sweeps.workers import start

    monkeypatch.setattr(start, "SILENT_SECONDS", 0.5)
    executor = fake_executor.InlineExecutor()
    with pytest.raises(start.JobFailedError, match="Hang: no report within") as failed:
        start.run_job(
            executor, silent_job, None, Slot(0, 1), str(tmp_path / "log"), lambda _: True,
            Interrupts(),
        )  # fmt: skip
    assert not failed.value.details and executor.stopped == ["job"]


def test_the_list_of_commands_keeps_names_and_summaries_apart(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert f"  {name}  " in out and f"  {summary}\n" in out
