"""The options of `run`, as argparse has them."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from pipelines.objectives import OBJECTIVES
from pipelines.training.options import OptionInfo, TrainingOptions
from sweeps.cli.notification import add_notify_option
from sweeps.cli.parser import OneLineParser
from sweeps.cli.shared_options import (
    add_finalist_options,
    add_image_options,
    add_pass_env_option,
    argument_type,
    type_of,
)
from sweeps.engines.keras_tuner_oracles.protocol import DEFAULT_ORACLE, ORACLES
from sweeps.engines.pruners.rungs import MIN_RUNG_IMAGES
from sweeps.option_values import path
from sweeps.options import OPTIONS, default_storage, settings_of
from sweeps.settings import (
    ADDRESS_VARIABLE,
    ALL,
    DEFAULT_NODE_CACHE,
    DEFAULT_NUM_TRIALS,
    DEFAULT_PRUNER,
    DEFAULT_SAMPLER,
    DEFAULT_STORAGE,
    ENGINES,
    EXECUTORS,
    LARGE_DATA_BUDGET,
    LARGE_DATA_IMAGES,
    SMALL_DATA_BUDGET,
    STORAGE_VARIABLE,
    DefaultBudget,
    SweepSettings,
)

RESUME_AUTO = "auto"
"""Of `--resume`: one command line that begins a sweep, goes on with it, or tells how it ended."""


def add_options(parser: OneLineParser) -> None:
    """Adds the options of `run`: the ten that `--help` shows, then those in named groups."""
    parser.split_help("main options")
    add = parser.add_argument
    add("--space", metavar="NAME",
        help="search space: cnn, mlp (see --list-spaces), or your own HyperModel or build(hp): "
        "FILE.py:NAME, MODULE:NAME")  # fmt: skip
    add("--dataset", metavar="NAME",
        help="mnist (default), fashion_mnist, cifar10, digits, or a folder of class folders, .npz, "
        ".csv, FILE.py:FUNCTION")  # fmt: skip
    add(
        "--trials",
        type=type_of("trials"),
        default=None,
        metavar="N",
        help="maximum number of trials (default: as many as the time limit allows, "
        f"{DEFAULT_NUM_TRIALS} without one)",
    )
    add(
        "--epochs",
        "--max-epochs",
        dest="epochs",
        type=type_of("epochs"),
        default=None,
        metavar="N",
        help=f"epochs of a fully trained trial (default: {LARGE_DATA_BUDGET.num_epochs}, or "
        f"{SMALL_DATA_BUDGET.num_epochs} for fewer than {LARGE_DATA_IMAGES:,} training images)",
    )
    add(
        "--timeout",
        type=type_of("timeout"),
        default="auto",
        metavar="TIME",
        help="stop after TIME (90s, 2h or none) at the end of running epochs (default: "
        f"{_minutes(LARGE_DATA_BUDGET)}, or {_minutes(SMALL_DATA_BUDGET)} for few images)",
    )
    add(
        "--objective",
        default=SweepSettings.objective,
        metavar="METRIC",
        help=", ".join(
            f"{name} (default)" if name == SweepSettings.objective else name for name in OBJECTIVES
        ),
    )
    add(
        "--seed",
        type=type_of("seed"),
        default=0,
        metavar="N",
        help="random seed (default: %(default)s)",
    )
    add("--name", metavar="NAME", help="the sweep's name (default: space, data set and time)")
    add("--workers", type=type_of("workers"), default=None, metavar="N",
        help="trials in parallel (default: from cores and GPUs)")  # fmt: skip
    add("--resume", nargs="?", const=True, default=False, choices=(RESUME_AUTO,),
        help="continue --name, or the latest unfinished; auto begins")  # fmt: skip

    own = parser.add_argument_group("your own data")
    add_image_options(own)
    _add_training_options(own)
    part = parser.add_argument_group("search space")
    part.add_argument("--set", action="append", metavar="RULE",
        help="search only these values of a parameter: optimizer=adam,nadam or filters=16..32 "
        "(repeatable)")  # fmt: skip
    part.add_argument("--fix", action="append", metavar="RULE",
        help="set a parameter to one value: batch_norm=true (repeatable)")  # fmt: skip
    part.add_argument("--limit", action="append", metavar="RULE",
        help="upper limit on the cost of a model: parameters<=200k, multiply_adds<=12M, "
        "model_bytes<=1M, epoch_seconds<=30 or latency_ms<=5; proposals keep it where the cost is "
        "known or predicted, and a trial that exceeds it is pruned (repeatable)")  # fmt: skip
    _add_search_options(parser)
    _add_recovery_options(parser)
    add_finalist_options(parser, default=0)
    look = parser.add_argument_group("inspect")
    look.add_argument("--list-spaces", action="store_true", help="list the spaces and exit")
    look.add_argument(
        "--describe",
        nargs="?",
        const="",
        metavar="SPACE",
        help="print a space's parameters, conditions and baselines and exit",
    )
    look.add_argument(
        "--dry-run",
        action="store_true",
        help="print what the sweep would do, its memory and its duration, and exit",
    )
    file = parser.add_argument_group("settings as a file")
    file.add_argument(
        "--config",
        metavar="FILE",
        help="settings from a YAML file; the command line wins (--no-NAME undoes a switch)",
    )
    file.add_argument(
        "--write-config",
        action="store_true",
        help="print the resolved settings as a file for --config",
    )
    file.add_argument(
        "--config-schema", action="store_true", help="print the file's JSON schema, for editors"
    )
    base = parser.add_argument_group("published baselines")
    base.add_argument(
        "--no-baselines", action="store_true", help="do not begin with the published models"
    )
    base.add_argument(
        "--baselines-only",
        action="store_true",
        help="train each published model with its published settings and compare test results",
    )
    train = parser.add_argument_group("training")
    train.add_argument(
        "--threads",
        type=type_of("threads"),
        default=None,
        metavar="N",
        help="threads of each trial (default: auto)",
    )
    _add_training_options(train)
    _add_gpu_options(parser)
    _add_cluster_options(parser)
    _add_store_options(parser)
    show = parser.add_argument_group("output")
    show.add_argument("--quiet", action="store_true", help="print the result only")  # fmt: skip
    show.add_argument(
        "--result",
        type=argument_type(path),
        metavar="FILE",
        help="write the outcome as JSON when the sweep ends, also by an interrupt",
    )
    add_notify_option(show)


def _add_store_options(parser: argparse.ArgumentParser) -> None:
    store = parser.add_argument_group("storage and tracking")
    store.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow server or database (default: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db)",
    )
    store.add_argument(
        "--experiment", metavar="NAME", help="MLflow experiment (default: space and data set)"
    )
    store.add_argument(
        "--storage",
        default=default_storage(),
        metavar="URL",
        help=f"Optuna storage (default: {STORAGE_VARIABLE}, or {DEFAULT_STORAGE})",
    )
    store.add_argument(
        "--work-dir",
        type=type_of("work_dir"),
        default=".sweeps",
        metavar="DIR",
        help="folder for prepared data, checkpoints and logs (default: %(default)s)",
    )
    store.add_argument(
        "--keep-models",
        type=type_of("keep_models"),
        default=3,
        metavar="N",
        help="number of models kept in MLflow, those of the best trials (default: %(default)s)",
    )
    store.add_argument(
        "--offline",
        action="store_true",
        help="send nothing to MLflow now; `keras-sweeps sync` sends it later",
    )
    add_pass_env_option(store, "none")


def _add_training_options(group: argparse._ArgumentGroup) -> None:
    """Adds those that `TrainingOptions` declares for this group."""
    for declared in fields(TrainingOptions):
        info: OptionInfo = declared.metadata["option"]
        if info.group != group.title:
            continue
        how: dict[str, Any] = {"default": declared.default, "help": info.help}
        if info.choices:
            how["choices"] = info.choices
        elif isinstance(declared.default, bool):
            how = {"action": "store_true", "help": info.help}
        else:
            how |= {"type": type_of(declared.name), "metavar": info.metavar}
        group.add_argument(f"--{declared.name.replace('_', '-')}", **how)


def _add_gpu_options(parser: argparse.ArgumentParser) -> None:
    gpu = parser.add_argument_group("GPUs")
    gpu.add_argument(
        "--gpus",
        default=ALL,
        metavar="WHICH",
        help="all, none, or GPU numbers of nvidia-smi: 0,1 (default: %(default)s)",
    )
    gpu.add_argument(
        "--trials-per-gpu",
        type=type_of("trials_per_gpu"),
        default=None,
        metavar="N",
        help="trials that share a GPU and its memory (default: auto, the fastest of 1, 2 and 4 in "
        "a short measurement)",
    )


def _add_cluster_options(parser: argparse.ArgumentParser) -> None:
    cluster = parser.add_argument_group("several machines")
    cluster.add_argument(
        "--executor",
        choices=EXECUTORS,
        default=EXECUTORS[0],
        help="where trials run: this machine, or the nodes of a Ray cluster (default: %(default)s)",
    )
    cluster.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="head of the Ray cluster, or auto for the one that this machine belongs to (default: "
        f"{ADDRESS_VARIABLE})",
    )
    cluster.add_argument(
        "--ray-insecure",
        action="store_true",
        help="use a cluster without authentication: whoever reaches it can run programs there",
    )
    cluster.add_argument(
        "--node-cache",
        default=DEFAULT_NODE_CACHE,
        metavar="DIR",
        help="folder on each node for data and running trials (default: %(default)s)",
    )
    cluster.add_argument(
        "--node-wait",
        type=type_of("node_wait"),
        default="10m",
        metavar="TIME",
        help="how long trials wait where the cluster has no node; then the sweep waits to be "
        "resumed (default: %(default)s)",
    )


def _add_search_options(parser: argparse.ArgumentParser) -> None:
    search = parser.add_argument_group("search algorithm")
    search.add_argument(
        "--sampler",
        metavar="NAME",
        help=f"sampler: prior, tpe, random, cmaes, qmc, grid or gp (default: {DEFAULT_SAMPLER})",
    )
    search.add_argument(
        "--engine",
        choices=ENGINES,
        default="optuna",
        help="Optuna's samplers, or Keras Tuner's oracles (default: %(default)s)",
    )
    search.add_argument(
        "--oracle",
        metavar="NAME",
        help=f"Keras Tuner oracle: {', '.join(ORACLES)} (default with that engine: "
        f"{DEFAULT_ORACLE})",
    )
    prune = parser.add_argument_group("pruning")
    prune.add_argument(
        "--pruner",
        metavar="NAME",
        help="pruner: asha, hyperband, median, percentile, patient or none (default: "
        f"{DEFAULT_PRUNER}; none with the oracle hyperband, which has rungs of its own)",
    )
    prune.add_argument(
        "--min-epochs",
        type=type_of("min_epochs"),
        default=None,
        metavar="N",
        help="first rung; no trial is pruned earlier: epochs, or a fraction of one such as 1/9 "
        f"(default: auto, the shortest with at least {MIN_RUNG_IMAGES:,} training images)",
    )
    prune.add_argument(
        "--reduction-factor",
        type=type_of("reduction_factor"),
        default=3,
        metavar="N",
        help="continue the best 1/N of the trials from each rung (eta; default: %(default)s)",
    )
    prune.add_argument(
        "--protect-baselines",
        action="store_true",
        help="never prune published baselines (default: they can be pruned like other trials)",
    )
    # What is the default now: older commands and configuration files may still say it.
    prune.add_argument("--prune-baselines", action="store_true", help=argparse.SUPPRESS)
    prune.add_argument(
        "--audit",
        type=type_of("audit"),
        default=0,
        metavar="N",
        help="train N pruned trials to the end afterwards, and report how many pruning lost",
    )
    stop = parser.add_argument_group("stopping (the first rule that is reached)")
    stop.add_argument(
        "--max-total-epochs",
        type=type_of("max_total_epochs"),
        metavar="N",
        help="stop after N epochs in total",
    )
    stop.add_argument(
        "--target", metavar="RULE", help="stop at this objective value: 'val_accuracy>=0.995'"
    )
    stop.add_argument(
        "--no-improvement",
        type=type_of("no_improvement"),
        metavar="N",
        help="stop after N trials in a row without a new best one",
    )


def _add_recovery_options(parser: argparse.ArgumentParser) -> None:
    lose = parser.add_argument_group("failures and resuming")
    lose.add_argument(
        "--accept-changes",
        action="store_true",
        help="with --resume: accept settings that differ from those of the sweep",
    )
    lose.add_argument(
        "--retries",
        type=type_of("retries"),
        default=2,
        metavar="N",
        help="retries of a trial that crashed, hung or ran out of memory (default: %(default)s)",
    )
    lose.add_argument(
        "--trial-timeout",
        type=type_of("trial_timeout"),
        metavar="TIME",
        help="time without a report after which a trial counts as hung (default: auto, the longer "
        "of ten minutes and 20 epochs)",
    )


def _minutes(budget: DefaultBudget) -> str:
    return f"{budget.timeout_seconds / 60:g}m"


def settings_from(arguments: argparse.Namespace) -> SweepSettings:
    """The settings that parsed options mean."""
    return settings_of({name: getattr(arguments, name) for name in OPTIONS})
