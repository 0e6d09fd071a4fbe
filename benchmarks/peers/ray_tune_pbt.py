"""Ray Tune with population based training, its MLflow callback, and a folder that resumes."""

import json
import sys
from pathlib import Path
from typing import Any

import keras
import mlflow
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.integration.keras import TuneReportCheckpointCallback
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.search.basic_variant import BasicVariantGenerator
from sweep_task import Task

task, folder = Task(*sys.argv[1:]), str(Path("tuner").resolve())


def train(config: dict[str, Any]) -> None:
    """One member, in a process of its own; it goes on from a better one's weights where it must."""
    params = {**json.loads(config["point"]), **{name: config[name] for name in mutations}}
    model, first = task.model(params), 0
    if checkpoint := tune.get_checkpoint():
        model.optimizer.build(model.trainable_variables)
        with checkpoint.as_directory() as kept:
            model.load_weights(f"{kept}/model.keras")
        first = int(model.optimizer.iterations) // task.steps(params)
        if params["schedule"] == "constant":  # Else the rate follows from the schedule.
            model.optimizer.learning_rate = params["learning_rate"]
    model.fit(
        task.x, task.y, params["batch_size"], task.epochs, validation_data=task.validation,
        initial_epoch=first, callbacks=[TuneReportCheckpointCallback()], verbose=0,
    )  # fmt: skip


mutations = {
    "learning_rate": tune.loguniform(3e-4, 2e-2),
    "weight_decay": tune.choice([0.0, 1e-5, 1e-4, 1e-3, 1e-2]),
}
# As text: a dictionary would be searched, too.
defaults = {"point": json.dumps(task.defaults), **{name: task.defaults[name] for name in mutations}}
if tune.Tuner.can_restore(f"{folder}/cnn"):
    tuner = tune.Tuner.restore(f"{folder}/cnn", train)
else:
    tuner = tune.Tuner(
        train,
        # Layers and batch size stay with the weights; the rest of the space cannot be mutated.
        param_space={"point": tune.sample_from(lambda spec: json.dumps(task.draw())), **mutations},
        tune_config=tune.TuneConfig(
            metric="val_accuracy", mode="max", num_samples=task.trials, time_budget_s=task.seconds,
            search_alg=BasicVariantGenerator([defaults], random_state=task.seed),
            scheduler=PopulationBasedTraining(
                perturbation_interval=1, hyperparam_mutations=mutations
            ),
        ),
        run_config=tune.RunConfig(
            name="cnn", storage_path=folder,
            # At the end: MLflow refuses a param that has changed, and here some do.
            callbacks=[MLflowLoggerCallback(
                "sqlite:///mlflow.db", experiment_name="cnn", log_params_on_trial_end=True
            )],
            # With fewer, it warns, one is deleted before another trial can go on from it.
            checkpoint_config=tune.CheckpointConfig(3, "val_accuracy"),
        ),
    )  # fmt: skip
result = tuner.fit().get_best_result(scope="all")
with result.get_best_checkpoint("val_accuracy", "max").as_directory() as kept:
    best = keras.saving.load_model(f"{kept}/model.keras")
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.set_experiment("cnn")
with mlflow.start_run(run_name="best"):
    mlflow.keras.log_model(best, name="model", registered_model_name="cnn")
