"""Data sets: any packing of the right content is accepted, anything else refused."""

from __future__ import annotations

import gzip
import http.server
import io
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from made_arrays import make_arrays

from pipelines.data import builtin
from pipelines.data.array_files import read_npz
from pipelines.data.arrays import fingerprint, read_idx_gz
from pipelines.data.builtin import Dataset, UnavailableError, load, verified
from pipelines.data.prepared import PARTS, DataLostError, prepare, store
from search_spaces.errors import InputError


def npz_bytes(compressed: bool = False) -> bytes:
    arrays = make_arrays()
    buffer = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(
        buffer, x_train=arrays.x_train[..., 0], y_train=arrays.y_train.astype(np.uint8),
        x_test=arrays.x_test[..., 0], y_test=arrays.y_test.astype(np.uint8),
    )  # fmt: skip
    return buffer.getvalue()


@pytest.fixture
def small_mnist(monkeypatch):
    """MNIST replaced by a small set whose content is known, as the real one's is."""
    content = fingerprint(make_arrays().parts())
    small = Dataset("mnist", ("a", "b", "c"), builtin._fetch_mnist, content, None, 24)
    monkeypatch.setitem(builtin.DATASETS, "mnist", small)


@pytest.fixture
def server(monkeypatch):
    """A local web server; `replies` maps a path to bytes, or to a function of the handler."""
    replies = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            reply = replies.get(self.path)
            if callable(reply):
                reply(self)
                return
            self.send_response(200 if reply is not None else 404)
            self.send_header("Content-Length", str(len(reply or b"")))
            self.end_headers()
            self.wfile.write(reply or b"")

        def log_message(self, *args):
            pass

    instance = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=instance.serve_forever, daemon=True).start()
    monkeypatch.setattr(builtin, "KERAS_URL", f"http://127.0.0.1:{instance.server_port}/")
    yield replies
    instance.shutdown()


@pytest.mark.parametrize("compressed", [False, True])
def test_any_packing_of_the_right_arrays_is_accepted(
    small_mnist, monkeypatch, tmp_path, compressed
):
    (tmp_path / "mnist.npz").write_bytes(npz_bytes(compressed))
    monkeypatch.setenv("SWEEPS_DATA_DIR", str(tmp_path))
    arrays, origin = load("mnist")
    assert arrays.x_train.shape == (120, 8, 8, 1)
    assert origin == str(tmp_path / "mnist.npz")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_file_is_refused(small_mnist, monkeypatch, tmp_path, damage):
    whole = npz_bytes()
    damaged = {
        "truncated": whole[: len(whole) // 2],
        "flipped": whole[:5000] + bytes([whole[5000] ^ 255]) + whole[5001:],
        "empty": b"",
        "text": b"<html>not found</html>",
    }[damage]
    (tmp_path / "mnist.npz").write_bytes(damaged)
    monkeypatch.setenv("SWEEPS_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match="corrupt") as caught:
        load("mnist")
    assert not isinstance(caught.value, UnavailableError)
    assert "mnist.npz" in str(caught.value)


def test_other_content_is_refused(small_mnist, monkeypatch, tmp_path):
    arrays = make_arrays()
    np.savez(
        tmp_path / "mnist.npz", x_train=arrays.x_train, y_train=arrays.y_train[::-1],
        x_test=arrays.x_test, y_test=arrays.y_test,
    )  # fmt: skip
    monkeypatch.setenv("SWEEPS_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match="checksum of the arrays differs"):
        load("mnist")


def test_a_pickle_in_an_npz_is_not_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'exploded'}",)

    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(tmp_path / "bad.npz", **{name: np.array([Bomb()], dtype=object) for name in names})
    with pytest.raises(InputError, match="pickled"):
        read_npz(tmp_path / "bad.npz")
    assert not (tmp_path / "exploded").exists()


def test_it_is_downloaded_into_keras_cache_with_progress(small_mnist, server):
    server["/mnist.npz"] = npz_bytes()
    reported = []
    arrays, origin = load("mnist", lambda name, done, total: reported.append((name, done, total)))
    assert arrays.y_train.shape == (120,)
    assert (builtin.keras_cache() / "mnist.npz").read_bytes() == npz_bytes()
    assert reported[-1] == ("mnist.npz", len(npz_bytes()), len(npz_bytes()))
    server.clear()
    assert "downloaded" in origin
    assert load("mnist")[1].endswith("mnist.npz"), "the second time it comes from the cache"


def test_a_download_that_breaks_off_leaves_nothing(small_mnist, server):
    def broken(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(npz_bytes()[:1000])

    server["/mnist.npz"] = broken
    with pytest.raises(UnavailableError, match="could not be downloaded"):
        load("mnist")
    assert list(builtin.keras_cache().iterdir()) == []


def test_another_page_than_the_file_does_not_poison_the_cache(small_mnist, server):
    server["/mnist.npz"] = b"<html>Please log in to this network</html>"
    with pytest.raises(UnavailableError, match="other content than expected"):
        load("mnist")
    assert list(builtin.keras_cache().iterdir()) == []


def test_the_ways_out_are_named_when_it_cannot_be_had(small_mnist, server):
    with pytest.raises(UnavailableError) as caught:
        load("mnist")
    for way in ("SWEEPS_DATA_DIR", "network", "--dataset digits", "404"):
        assert way in str(caught.value)


def test_a_host_that_does_not_answer_is_given_up_in_time(small_mnist, monkeypatch):
    monkeypatch.setattr(builtin, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(builtin.socket, "getaddrinfo", lambda *_: time.sleep(5))
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="no answer within"):
        load("mnist")
    assert time.monotonic() - started < 4


def test_a_published_checksum_is_enforced(server, tmp_path):
    server["/train-labels-idx1-ubyte.gz"] = b"something else"
    server["/train-images-idx3-ubyte.gz"] = b"something else"
    with pytest.raises(UnavailableError, match="md5 differs"):
        load("fashion_mnist")


def test_a_foreign_archive_in_the_cache_is_never_unpickled():
    cache = builtin.keras_cache()
    cache.mkdir(parents=True)
    (cache / "cifar-10-python.tar.gz").write_bytes(b"not the published archive")
    with pytest.raises(InputError, match="md5 differs from the published one"):
        load("cifar10")


def test_idx_files_are_read(tmp_path):
    arrays = make_arrays(side=28)
    for stem, x, y in (
        ("train", arrays.x_train, arrays.y_train),
        ("t10k", arrays.x_test, arrays.y_test),
    ):
        images, labels = bytes(16) + x.tobytes(), bytes(8) + y.astype(np.uint8).tobytes()
        (tmp_path / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    assert fingerprint(read_idx_gz(tmp_path).parts()) == fingerprint(arrays.parts())


def test_a_wrong_shape_is_refused():
    with pytest.raises(
        InputError, match=r"must hold training images of shape \(60000, 28, 28, 1\)"
    ):
        verified(builtin.get_dataset("fashion_mnist"), make_arrays(), "somewhere")


def test_the_real_mnist_is_recognised(mnist_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("SWEEPS_DATA_DIR", mnist_dir)
    data = prepare("mnist", tmp_path)
    assert data.num_images == {"train": 50_000, "validation": 10_000, "test": 10_000}
    with np.load(Path(mnist_dir) / "mnist.npz") as file:
        np.testing.assert_array_equal(data.arrays("validation")[1], file["y_train"][-10_000:])


def test_digits_need_no_network_and_are_split_in_strata(tmp_path):
    data = prepare("digits", tmp_path)
    assert data.input_shape == (28, 28, 1)
    assert sum(data.num_images.values()) == 1_797
    shares = []
    for part in PARTS:
        x, y = data.arrays(part)
        assert (x.dtype, x.min(), x.max()) == (np.uint8, 0, 255)
        shares.append(np.bincount(y) / len(y))
    np.testing.assert_allclose(shares[0], shares[1], atol=0.01)
    again = prepare("digits", tmp_path / "other")
    assert again.fingerprint == data.fingerprint


def test_prepared_arrays_are_mapped_and_made_once(tiny_data, tmp_path):
    x, _ = tiny_data.arrays("train")
    assert isinstance(x, np.memmap)
    dataset = Dataset("tiny", ("a", "b", "c"), None)
    first = store(tmp_path, dataset, make_arrays(), "1" * 64, "made")
    before = (Path(first.folder) / "meta.json").stat().st_mtime_ns
    second = store(tmp_path, dataset, make_arrays(), "1" * 64, "made")
    assert second == first
    assert (Path(first.folder) / "meta.json").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tiny")] == [
        "tiny-111111111111"
    ]
    assert not list(tmp_path.glob(".preparing-*"))


def test_the_fingerprint_is_of_the_content_alone():
    arrays = make_arrays()
    narrow = [a.astype(np.uint8) if a.ndim == 1 else a for a in arrays.parts()]
    assert fingerprint(narrow) == fingerprint(arrays.parts())
    changed = [a.copy() for a in arrays.parts()]
    changed[0][0, 0, 0, 0] ^= 1
    assert fingerprint(changed) != fingerprint(arrays.parts())


@pytest.mark.parametrize("damage", ["removed", "cut", "shortened"])
def test_prepared_data_that_are_lost_are_named_and_prepared_again(tmp_path, damage):
    data = prepare("digits", tmp_path)
    path = Path(data.folder) / "x_train.npy"
    if damage == "removed":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        np.save(path, np.load(path)[:10])
    with pytest.raises(DataLostError, match=r"prepared data in .* are gone or damaged"):
        data.arrays("train")
    again = prepare("digits", tmp_path)
    assert again == data and len(again.arrays("train")[0]) == data.num_images["train"]
