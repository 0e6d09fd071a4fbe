"""Which clusters are refused: in one line, soon, and with nothing begun."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time

import pytest
from cluster_sweeps import SWEEP, RunningSweep, on_cluster
from ray_cluster import ROOT, ray_cluster

from sweeps.cluster import reaching, requirements
from sweeps.cluster.connection import CONNECT_SECONDS
from sweeps.cluster.reaching import UnreachableError, reach

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster(num_nodes=0, token=True) as made:
        yield made


@pytest.fixture(scope="module")
def open_cluster():
    with ray_cluster(num_nodes=0) as made:
        yield made


@pytest.fixture(autouse=True)
def no_token(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # Reaching a cluster sets both.
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(reaching, "JOIN_SECONDS", 0.1)


def refusal(address: str, *, insecure: bool = False) -> str:
    started = time.monotonic()
    with pytest.raises(UnreachableError) as error:
        reach(address, insecure=insecure)
    assert time.monotonic() - started < CONNECT_SECONDS
    assert "\n" not in str(error.value)
    return str(error.value)


def test_nothing_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    text = refusal(address)
    assert text.startswith(f"No Ray cluster answers at {address} (")
    assert "`ray start --head`" in text and "`ray start --address=HOST:PORT`" in text


def test_something_else_listens():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        text = refusal(f"127.0.0.1:{other.getsockname()[1]}")
    assert "does not answer as the head of a Ray cluster" in text and "RAY_USE_TLS=1" in text


def test_without_a_token(cluster):
    assert "wants a token, and there is none in RAY_AUTH_TOKEN or" in refusal(cluster.address)


def test_with_a_wrong_token(cluster, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another-token-that-is-long-enough")
    assert "refuses the token of this machine (RAY_AUTH_TOKEN)" in refusal(cluster.address)


def test_with_its_token(cluster, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(cluster.folder / "token"))
    assert reach(cluster.address, insecure=False) == reaching.Reached(cluster.address, True)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """What makes Ray talk through TLS, with a certificate that is its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    # Ray takes this machine's own address where it is told a loopback one.
    own = ray.util.get_node_ip_address()
    names = ",".join(f"IP:{address}" for address in (own, *(f"127.0.0.{n}" for n in range(1, 9))))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=tests", "-addext", f"subjectAltName={names},DNS:localhost", "-keyout", "key", "-out",
         "certificate"], cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_CA_CERT": str(folder / "certificate"),
        "RAY_TLS_SERVER_CERT": str(folder / "certificate"),
        "RAY_TLS_SERVER_KEY": str(folder / "key"),
    }


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_cluster_with_tls_and_token_is_used_with_both_and_refused_without(tls, tmp_path):
    with ray_cluster(num_nodes=1, token=True, variables=tls) as cluster:
        assert "set RAY_USE_TLS=1 and its certificates" in refusal(cluster.address)
        folder = tmp_path / "driver"
        folder.mkdir()
        sweep = RunningSweep(
            folder, *SWEEP, "--trials", "1", "--epochs", "1",
            *on_cluster(cluster.address, tmp_path),
            RAY_AUTH_TOKEN_PATH=str(cluster.folder / "token"), **tls,
        )  # fmt: skip
        assert sweep.end(100) == 0, sweep.text


def test_a_cluster_without_authentication_is_taken_on_this_machine_only(open_cluster, monkeypatch):
    assert not reach(open_cluster.address, insecure=False).has_token
    monkeypatch.setattr(reaching, "_is_loopback", lambda host: False)
    text = refusal(open_cluster.address)
    assert "has no authentication" in text and "RAY_AUTH_MODE=token" in text
    assert not reach(open_cluster.address, insecure=True).has_token


def test_a_machine_that_is_no_node(open_cluster, monkeypatch):
    monkeypatch.setattr(reaching, "_own_addresses", lambda candidates: set())
    text = refusal(open_cluster.address)
    assert f"ray start --address={open_cluster.address} --num-cpus=0" in text


def test_auto_is_the_cluster_that_this_machine_joined_last(monkeypatch, open_cluster, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(open_cluster.address)
    assert reach("auto", insecure=False).address == open_cluster.address
    (tmp_path / "ray" / "ray_current_cluster").unlink()
    assert refusal("auto").startswith("This machine is a node of no Ray cluster.")


def test_the_command_refuses_in_one_line_and_begins_nothing(cluster, tmp_path):
    sweep = RunningSweep(
        tmp_path, *SWEEP, *on_cluster(cluster.address, tmp_path),
        RAY_AUTH_TOKEN_PATH=str(tmp_path / "none"),
    )  # fmt: skip
    assert sweep.end(100) == 2, sweep.text
    errors = [line for line in sweep.lines if line.startswith("error: ")]
    assert len(errors) == 1 and "wants a token" in errors[0]
    assert "Traceback" not in sweep.text and not list(tmp_path.iterdir())


def test_a_node_with_another_version_is_refused_by_name(cluster, tmp_path):
    other = tmp_path / "other"
    for package in requirements.OURS:
        shutil.copytree(ROOT / package, other / package, ignore=shutil.ignore_patterns("*.pyc"))
    (other / "sweeps" / "changed.py").write_text("")
    node = cluster.add(root=other)
    folder = tmp_path / "driver"
    folder.mkdir()
    sweep = RunningSweep(
        folder, *SWEEP, *on_cluster(cluster.address, tmp_path),
        RAY_AUTH_TOKEN_PATH=str(cluster.folder / "token"),
    )  # fmt: skip
    assert sweep.end(100) == 2, sweep.text
    assert node.identity in sweep.text, "it is named"
    assert "keras-sweeps " in sweep.text and " there, " in sweep.text
    assert not list(folder.iterdir())


def test_what_differs_is_told_in_one_line():
    libraries = requirements.LIBRARIES["tensorflow"]
    here = requirements.found_here(libraries, requirements.OURS)
    assert set(here) == {"Python", "keras-sweeps", "tensorflow", "keras", "numpy", "ray"}
    assert requirements.differences(here, here) == ""
    there = {**here, "numpy": "1.0", "keras-sweeps": ""}
    text = requirements.differences(there, here)
    assert text.startswith("numpy 1.0 there, ") and "keras-sweeps missing there, " in text


def test_what_a_library_was_built_for_may_differ_and_its_version_may_not():
    here = {"torch": "2.9.1+cpu"}
    assert requirements.differences({"torch": "2.9.1+cu128"}, here) == ""
    assert requirements.differences({"torch": "2.9.1"}, here) == ""
    assert requirements.differences({"torch": "2.9.0+cpu"}, here) == (
        "torch 2.9.0+cpu there, 2.9.1+cpu here"
    )
    assert requirements.differences({"torch": "2.9.1+git1a2b3c"}, here), "another source"
    assert requirements.differences({"torch": ""}, here) == "torch missing there, 2.9.1+cpu here"
