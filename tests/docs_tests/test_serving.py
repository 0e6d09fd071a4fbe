"""docs/serving.md does what it says: its own lines, run against a real server, offline."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from logged_models import Logged, digits_like, log_model, random_model
from PIL import Image, ImageOps

from sweeps.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
PORT = "5001"
START_SECONDS = 120


def blocks(language: str) -> list[str]:
    """The code of the page in one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def block(language: str, word: str) -> str:
    (found,) = [code for code in blocks(language) if word in code]
    return found


class Service:
    """The server of the page in a folder of its own, and what it needs to run its lines there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        # Commands are those of this environment; nothing may ask a network for anything.
        proxy = "http://127.0.0.1:9"
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "http_proxy": proxy, "https_proxy": proxy, "no_proxy": "127.0.0.1",
        }  # fmt: skip
        with (folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", self.here(block("bash", "models serve"))],
                cwd=folder, env=self.environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def here(self, code: str) -> str:
        assert PORT in code
        return code.replace(PORT, str(self.port))

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if requests.get(f"http://127.0.0.1:{self.port}/ping", timeout=5).ok:
                    return
            except requests.RequestException:
                time.sleep(0.2)
        pytest.fail(f"the server did not start:\n{self.log[-3000:]}")

    def stop(self) -> None:
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, kind)
                self.process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def post(self, inputs: object) -> requests.Response:
        return requests.post(
            f"http://127.0.0.1:{self.port}/invocations", json={"inputs": inputs}, timeout=60
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a sweep ran: a store, and pictures of which two are those of the page."""
    folder = tmp_path_factory.mktemp("serving")
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:8, 6:22], pixels[8:25, 17:21] = 255, 210
    image = Image.fromarray(pixels)
    image.save(folder / "seven.png")
    ImageOps.invert(image.resize((300, 400))).convert("RGB").save(folder / "three.jpg")
    return folder


@pytest.fixture(scope="module")
def logged(folder) -> Logged:
    found = log_model(folder, 0, digits_like(folder / "data"), random_model(7))
    found.register("cnn-mnist")
    return found


@pytest.fixture(scope="module")
def service(folder, logged) -> Iterator[Service]:
    service = Service(folder)
    try:
        service.wait()
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="module")
def expected(folder, logged) -> np.ndarray:
    """The probabilities of seven.png, by Keras in this process."""
    pixels = np.asarray(Image.open(folder / "seven.png"))
    return logged.model.predict(pixels.reshape(1, 28, 28, 1), verbose=0)


def test_the_request_and_curl_answer_what_keras_does(service, expected):
    service.run(sys.executable, "-c", block("python", "request.json"))
    answer = json.loads(service.run("bash", "-c", service.here(block("bash", "curl"))))
    assert list(answer) == ["predictions"]
    np.testing.assert_allclose(answer["predictions"], expected, rtol=1e-5, atol=1e-8)


def test_the_python_client_prints_the_class(service, expected):
    printed = service.run(sys.executable, "-c", service.here(block("python", "read_picture")))
    assert printed == f"class {expected.argmax()}\n"


def test_several_pictures_are_answered_in_order(service, logged):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)).astype(np.uint8)
    answer = service.post(pixels.tolist())
    np.testing.assert_allclose(
        answer.json()["predictions"], logged.model.predict(pixels, verbose=0), rtol=1e-5, atol=1e-8
    )


def test_wrong_pixels_are_answered_as_the_page_says(service):
    assert service.post([[1, 2], [3, 4]]).status_code == 400
    for value in (300, -1):
        answer = service.post(np.full((1, 28, 28, 1), value).tolist())
        assert answer.status_code == 400 and "out of bounds for uint8" in answer.text
    fractions, black = (service.post(np.full((1, 28, 28, 1), v).tolist()) for v in (0.9, 0))
    assert fractions.status_code == 200 and fractions.json() == black.json()


def test_it_listens_on_loopback_only(service):
    assert f"Uvicorn running on http://127.0.0.1:{service.port}" in service.log


def test_a_new_champion_is_served_after_a_restart_only(service, folder, logged, expected):
    other = log_model(folder, 1, digits_like(folder / "data"), random_model(8))
    version = other.register("cnn-mnist")
    pixels = np.asarray(Image.open(folder / "seven.png")).reshape(1, 28, 28, 1).tolist()
    np.testing.assert_allclose(
        service.post(pixels).json()["predictions"], expected, rtol=1e-5, atol=1e-8
    )
    logged.client.set_registered_model_alias("cnn-mnist", "champion", "1")
    logged.client.delete_model_version("cnn-mnist", str(version))


def test_the_commands_of_the_page_predict(capsys, folder, logged, expected, monkeypatch):
    monkeypatch.chdir(folder)
    # The whole address: MLflow keeps a store by its address, wherever a process is now.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", logged.uri)
    lines = block("bash", "predict.py").strip().splitlines()
    for line in lines:
        python, script, *options = shlex.split(line)
        assert (python, script) == ("python", "pipelines/predict.py")
        assert main(["predict", *options]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        if "--json" in options:
            (prediction,) = json.loads(captured.out)["predictions"]
            np.testing.assert_allclose(
                list(prediction["probabilities"].values()), expected[0], rtol=1e-5, atol=1e-8
            )
        else:
            assert "cnn-mnist version 1" in captured.out
    assert (folder / "seen.png").read_bytes().startswith(b"\x89PNG")


def test_every_block_of_the_page_is_run_here():
    assert (len(blocks("bash")), len(blocks("python"))) == (3, 2)
    assert PAGE.count("```") == 2 * 5


def test_the_page_names_the_limits_and_options_that_there_are(capsys):
    from pipelines.images.reading import MAX_PIXELS

    assert f"up to {MAX_PIXELS // 1_000_000} million pixels" in PAGE
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    mlflows = {"--env-manager", "--port", "--host"}
    assert set(re.findall(r"(?<![-\w])--[a-z][a-z-]+", PAGE)) <= known | mlflows
