"""Which variables workers do without, and which they get back."""

from __future__ import annotations

import pytest

from search_spaces.errors import InputError
from sweeps.executors.credentials import check_passed, credentials, passed

HARMLESS = {
    "PATH": "/bin", "HOME": "/home/me", "CUDA_VISIBLE_DEVICES": "0", "KERAS_BACKEND": "jax",
    "TF_CPP_MIN_LOG_LEVEL": "3", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0",
    "SWEEPS_STORAGE": "sqlite:///o.db", "MLFLOW_TRACKING_URI": "http://h:5000", "XLA_FLAGS": "",
    "PGPASSFILE": "/home/me/.pgpass", "PGUSER": "me", "HF_HOME": "/data", "http_proxy": "http://p:1",
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AZURE_CLIENT_SECRET", "GOOGLE_APPLICATION_CREDENTIALS",
     "DATABRICKS_HOST", "DATABRICKS_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY",
     "GITHUB_TOKEN", "KAGGLE_USERNAME", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD",
     "MLFLOW_TRACKING_TOKEN", "MLFLOW_FLASK_SERVER_SECRET_KEY", "PGPASSWORD", "OPENAI_API_KEY",
     "MLFLOW_TRACKING_CLIENT_CERT_PASSWORD", "hf_token"],
)  # fmt: skip
def test_names_of_secrets_are_withheld(name):
    assert credentials(HARMLESS | {name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    "address",
    ["postgresql://u:slash/Hash#x@h/d", "https://TOKEN@h/x", "http://u:p@proxy:3128",
     "https://h/?sig=abc", "http://u:pa/ss@h"],
)  # fmt: skip
def test_every_address_with_a_secret_is_withheld(address):
    assert credentials(HARMLESS | {"SOME_URL": address}) == {"SOME_URL": address}


def test_what_is_asked_for_is_given_back():
    environment = {"HF_TOKEN": "x", "AWS_PROFILE": "y"}
    check_passed(("HF_TOKEN",), environment)

    assert passed(("HF_TOKEN", "GONE"), environment) == {"HF_TOKEN": "x"}


@pytest.mark.parametrize(
    ("name", "shown"), [("HF_TOKN", "HF_TOKN"), ("HF_TOKEN=hf_abc", "HF_TOKEN=..."), ("", "")]
)
def test_a_name_that_is_not_set_is_refused_and_no_value_repeated(name, shown):
    with pytest.raises(InputError, match="--pass-env must be the name") as error:
        check_passed((name,), {"HF_TOKEN": "x"})
    assert f"Received: {shown}." in str(error.value) and "hf_abc" not in str(error.value)
