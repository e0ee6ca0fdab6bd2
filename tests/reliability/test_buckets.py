"""Data, work directories and bundles of gs://..., over a bucket that is a directory.

fsspec's client is tests/fake_gcs/gcsfs.py; tensorstore, by which Orbax writes checkpoints, has a
client of its own, which talks to tests/fake_gcs/objects.py. What this can't show: a real bucket's
permissions, speed and failures.
"""

import json
import shutil
import sys
import threading
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from configs import ergl
from ergl_jax import bundle as bundles
from ergl_jax.datasets import builder, sources
from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write, local_path, make_directory, user_path
from ergl_jax.training import train

TESTS = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def objects():
    """A server for tensorstore, which looks for its address once."""
    sys.path.insert(0, str(TESTS / "fake_gcs"))
    from objects import Objects

    sys.path.pop(0)

    with pytest.MonkeyPatch.context() as patch, Objects() as server:
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
        patch.setenv("no_proxy", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def bucket(tmp_path, monkeypatch, objects):
    """The directory that gs://bucket is; its copies have a cache of their own."""
    from etils.epath import backend

    objects.root = tmp_path / "gcs"
    monkeypatch.setenv("FAKE_GCS", str(tmp_path / "gcs"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(TESTS / "fake_gcs"))
    # Whom Orbax asks whether the bucket has folders.
    client = types.SimpleNamespace(get_bucket=lambda name: None)
    monkeypatch.setitem(
        sys.modules, "google.cloud.storage", types.SimpleNamespace(Client=lambda: client)
    )
    (tmp_path / "gcs" / "bucket").mkdir(parents=True)
    yield tmp_path / "gcs" / "bucket"
    backend._FileSystemSpecBackend._get_filesystem.cache_clear()
    sys.modules.pop("gcsfs", None)


def test_paths_of_buckets(bucket, monkeypatch):
    for text in ("a/b", "/a/b", "gs:/a", "~nobody-here/a"):
        assert type(user_path(text)) is type(Path())
    path = user_path("gs://bucket/a") / "b.csv"
    assert str(path) == "gs://bucket/a/b.csv" and not path.exists()
    for text in ("s3://bucket/a", "https://example.org/a"):
        with pytest.raises(InputError, match="neither a path of this machine nor gs://"):
            user_path(text)
    with pytest.raises(InputError, match="gs://bucket/a: must be on this machine"):
        local_path("gs://bucket/a")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"gs://b/a: gcsfs is not installed: pip install"):
        user_path("gs://b/a")


def test_a_file_is_complete_or_absent(bucket):
    path = user_path("gs://bucket/new/a.txt")
    assert make_directory("gs://bucket/new", "directory") == path.parent
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as tmp:
        tmp.write_text("half")
        raise KeyboardInterrupt
    assert not path.exists()
    for text in ("old", "new"):
        with atomic_write(path) as tmp:
            tmp.write_text(text)
        assert (bucket / "new" / "a.txt").read_text() == text


def test_a_whole_run_in_a_bucket(bucket, objects, tiny, capsys):
    """It resumes after its last checkpoint, and its bundle is the same."""
    config, workdir = tiny.config(data__data_dir="gs://bucket/data"), user_path("gs://bucket/run")
    assert train.train(config, workdir)["test"] == tiny.results["test"]
    assert all(objects.asked.values())
    for lost in ("bundle", "checkpoints/latest/2", "checkpoints/best"):
        shutil.rmtree(bucket / "run" / lost)
    train.train(config, workdir)
    assert "Resuming after epoch 1 of gs://bucket/run" in capsys.readouterr().out
    names = {"config.json", "metrics.jsonl", "results.json", "predictions.csv", "confusion.csv"}
    names |= {"confusion.png", "tensorboard", "bundle", "checkpoints"}
    assert {path.name for path in (bucket / "run").iterdir()} == names
    written = json.loads((bucket / "run" / "results.json").read_text())
    test, wanted = written["test"], dict(tiny.results["test"])
    assert test.pop("by_scene") == wanted.pop("by_scene")
    assert test == pytest.approx(wanted)
    with pytest.raises(InputError, match="gs://bucket/run belongs to a run with other settings"):
        train.train(tiny.config(data__data_dir="gs://bucket/data", seed=1), workdir)
    local, remote = bundles.load(tiny.workdir / "bundle"), bundles.load(workdir)
    jax.tree.map(np.testing.assert_array_equal, dict(local.variables), dict(remote.variables))
    (bucket / "run" / "bundle" / "mine.txt").write_text("")
    with pytest.raises(InputError, match="mine.txt in it, which is no part of a bundle"):
        local.save(workdir / "bundle")


@pytest.fixture
def recordings(bucket):
    """A manifest in the bucket, with its recordings and events."""
    rng, corpus = np.random.default_rng(0), bucket / "corpus"
    corpus.mkdir()
    text = "\ufefffile,scene,split\n"
    for i, name in enumerate(("a.wav", "b.flac", "c.wav", "d.wav")):
        soundfile.write(corpus / name, rng.uniform(-0.1, 0.1, 16000), 16000)
        text += f"{name},{('tram', 'park')[i % 2]},{('train', 'test')[i // 2]}\n"
    (corpus / "my.csv").write_text(text, encoding="utf-8")
    probabilities = rng.uniform(0, 1, (4, 2)).astype(np.float32)
    labels = dict(clip=list("abcd"), events=["Bell", "Bird"], probabilities=probabilities)
    np.savez(corpus / "my.events.npz", **labels)
    config = ergl.get_config("folder").data
    config.manifest, config.data_dir = "gs://bucket/corpus/my.csv", "gs://bucket/data"
    config.front_end, config.clip_seconds = "panns_16k", 1.0
    return config, probabilities


def test_recordings_and_features_in_a_bucket(recordings, bucket, tmp_path, monkeypatch):
    """One machine prepares them; another copies what it prepared, unless it is incomplete."""
    config, probabilities = recordings
    first = sources.open_dataset(config)
    assert not first.failures and first.sizes == {"train": 2, "test": 2}
    np.testing.assert_array_equal(first.split("test").arrays()["events"], probabilities[2:])
    (stored,) = bucket.glob("data/ergl_scenes/*/1.0.0")
    assert (stored / builder.FAILURES).exists()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    with monkeypatch.context() as patch:
        patch.setattr(builder.ErglScenes, "_download_and_prepare", None)  # not again
        second = sources.open_dataset(config)
    assert second.path != first.path and second.fingerprint == first.fingerprint
    a, b = (dataset.split("train").arrays()["log_mel"] for dataset in (first, second))
    np.testing.assert_array_equal(a, b)

    (stored / builder.FAILURES).unlink()  # what is copied last
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third"))
    sources.open_dataset(config)
    assert (stored / builder.FAILURES).exists()
