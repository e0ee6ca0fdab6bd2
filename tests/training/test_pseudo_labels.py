"""Pseudo-labels are the teacher's outputs for any batches, devices and interruptions."""

import csv
import dataclasses
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from ergl_jax import audio, registry
from ergl_jax import bundle as bundles
from ergl_jax.config import ModelConfig
from ergl_jax.datasets.manifest import read_manifest
from ergl_jax.errors import InputError
from ergl_jax.labels import AUDIOSET
from ergl_jax.training import pseudo_labels

ROOT = Path(__file__).resolve().parents[2]
RATE, SECONDS = 16000, 0.5
CONFIG = {
    "name": "pann",
    "compute_dtype": "float32",
    "encoder": {"architecture": "cnn6", "width_divisor": 16, "dropout": 0.2},
    "dropout": 0.5,
}


@pytest.fixture(scope="module")
def teacher():
    """A PANN of 4 to 32 channels, its weights random."""
    model = registry.build(ModelConfig.from_saved(CONFIG), num_scenes=0, num_events=527)
    init = jax.jit(lambda: model.init(jax.random.key(0), np.zeros((1, 51, 64)), train=False))
    variables = jax.device_get(init())
    stats = variables["batch_stats"]["encoder"]["BatchNorm_0"]
    stats["mean"], stats["var"] = stats["mean"] - 40, 200 * stats["var"]  # as of dB
    return bundles.Bundle(
        model=ModelConfig.from_saved(CONFIG),
        variables=variables,
        scenes=(),
        events=AUDIOSET,
        front_end=audio.get_front_end("panns_16k"),
        clip_seconds=SECONDS,
        pad="zero",
        licence="CC0",
        dataset="none",
    )


@pytest.fixture
def manifest(tmp_path):
    """Eleven recordings from 0.3 to 1.3 s, one of them at another rate and in stereo."""
    rng, rows = np.random.default_rng(0), ["file,scene,split"]
    for i in range(11):
        samples = rng.uniform(0.01, 0.2) * rng.standard_normal(int((0.3 + 0.1 * i) * RATE))
        samples += 0.2 * np.sin(rng.uniform(0.05, 2) * np.arange(len(samples)))
        if i == 7:
            soundfile.write(tmp_path / "7.wav", np.stack([samples, 0 * samples], 1), 22050)
        else:
            soundfile.write(tmp_path / f"{i}.wav", samples, RATE)
        rows.append(f"{i}.wav,{'bus' if i % 2 else 'tram'},{'test' if i > 7 else 'train'}")
    path = tmp_path / "my.csv"
    path.write_text("\n".join(rows))
    return path


def label(teacher, manifest, out="labels.npz", **options):
    options = dict(clip_seconds=SECONDS, pad="zero", long="crop", batch_size=4) | options
    path = manifest.with_name(out)
    return path, pseudo_labels.label(teacher, manifest, path, **options)


def one_by_one(teacher, waveforms):
    """Probabilities (N, 527) of single pieces, without the code under test."""
    model = teacher.build()

    @jax.jit
    def apply(waveform):
        log_mel = audio.log_mel(waveform[None], teacher.front_end)
        return jax.nn.sigmoid(model.apply(teacher.variables, log_mel, train=False).event_logits)[0]

    return np.stack([apply(waveform) for waveform in waveforms])


def names(directory):
    return sorted(path.name for path in directory.iterdir() if path.suffix != ".wav")


def read(path):
    return dict(np.load(path))


def test_are_the_teachers_outputs(teacher, manifest, capfd):
    path, failures = label(teacher, manifest)
    waveforms = [audio.read_audio(manifest.with_name(f"{i}.wav"), RATE) for i in range(11)]
    length = int(SECONDS * RATE)
    clips = [clip for x in waveforms for _, clip in audio.segment(x, length, long="crop")]
    expected = one_by_one(teacher, clips)
    assert expected.std(axis=0).mean() > 0.01  # no two alike
    found = read(path)
    assert found["clip"].tolist() == [f"{i}.wav" for i in range(11)] and not failures
    assert found["events"].tolist() == list(AUDIOSET)
    assert found["probabilities"].dtype == np.float32
    np.testing.assert_allclose(found["probabilities"], expected, rtol=0, atol=1e-6)
    assert names(manifest.parent) == ["labels.npz", "my.csv"]
    assert "11/11" in capfd.readouterr().err
    corpus = read_manifest(manifest, events_file=path)
    assert corpus.events == AUDIOSET
    np.testing.assert_array_equal([clip.events for clip in corpus.clips], found["probabilities"])


@pytest.mark.parametrize("batch_size", [1, 64])
def test_longer_recordings_are_averaged_over_windows(teacher, manifest, batch_size):
    path, _ = label(teacher, manifest, long="windows", pad="repeat", batch_size=batch_size)
    for i, found in enumerate(read(path)["probabilities"]):
        waveform = audio.read_audio(manifest.with_name(f"{i}.wav"), RATE)
        pieces = [x for _, x in audio.segment(waveform, int(SECONDS * RATE), pad="repeat")]
        expected = one_by_one(teacher, pieces).mean(axis=0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert len(pieces) == 3


class Killed(BaseException):
    pass


def killed(teacher, manifest, monkeypatch):
    """`label`, stopped where it writes the sixth recording: no clean-up runs."""
    write, written = pseudo_labels._Partial.write, []

    def stop(self, index, row):
        if len(written) == 5:
            raise Killed
        written.append(index)
        write(self, index, row)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(pseudo_labels._Partial, "write", stop)
        label(teacher, manifest, long="windows")


def counted(monkeypatch):
    """The names of recordings that are decoded from here on."""
    seen, decode = [], pseudo_labels.read_audio

    def count(path, *arguments):
        seen.append(path.name)
        return decode(path, *arguments)

    monkeypatch.setattr(pseudo_labels, "read_audio", count)
    return seen


def test_an_interrupted_call_resumes_and_repeats_changed_recordings(teacher, manifest, monkeypatch):
    killed(teacher, manifest, monkeypatch)
    partial, *others = names(manifest.parent)
    assert re.fullmatch(r"labels\.npz\.[0-9a-f]{12}\.partial", partial) and others == ["my.csv"]
    soundfile.write(manifest.with_name("2.wav"), np.full(RATE, 0.1), RATE)
    seen = counted(monkeypatch)
    path, _ = label(teacher, manifest, long="windows")
    assert sorted(seen) == sorted(f"{i}.wav" for i in (2, *range(5, 11)))
    whole, _ = label(teacher, manifest, "whole.npz", long="windows")
    found, expected = read(path), read(whole)
    np.testing.assert_array_equal(found["clip"], expected["clip"])
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], rtol=0, atol=1e-6)
    assert names(manifest.parent) == ["labels.npz", "my.csv", "whole.npz"]


def test_notes_survive_interruptions(teacher, manifest, monkeypatch):
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, RATE)
    for i in (0, 5, 10):  # labelled before it is killed, only decoded, and after
        soundfile.write(manifest.with_name(f"{i}.wav"), np.stack([noise, -noise], 1), RATE)
    killed(teacher, manifest, monkeypatch)
    (partial,) = manifest.parent.glob("*.partial.notes")
    with open(partial, "a") as file:
        file.write('5.wav,"cut sho')
    manifest.with_name("3.wav").rename(manifest.with_name("moved.wav"))
    label(teacher, manifest, long="windows")
    manifest.with_name("moved.wav").rename(manifest.with_name("3.wav"))
    found = [label(teacher, manifest, out, long="windows")[0] for out in ("labels.npz", "all.npz")]
    kept, whole = (path.with_name(f"{path.stem}.notes.csv").read_text() for path in found)
    assert sorted(kept.splitlines()) == sorted(whole.splitlines()) and len(whole.splitlines()) == 4
    assert not list(manifest.parent.glob("*.partial*"))


@pytest.mark.parametrize("change", ["setting", "names", "weights", "damage"])
def test_other_settings_and_a_damaged_file_start_anew(teacher, manifest, monkeypatch, change):
    killed(teacher, manifest, monkeypatch)
    options = {"long": "windows"}
    if change == "setting":
        options["pad"] = "repeat"
    elif change == "damage":
        (partial,) = manifest.parent.glob("*.partial")
        partial.write_bytes(partial.read_bytes()[:100])
    elif change == "names":
        lines = manifest.read_text().splitlines()
        manifest.write_text("\n".join([lines[0], *lines[:0:-1]]))
    else:
        variables = jax.tree.map(np.copy, teacher.variables)
        variables["params"]["fc_audioset"]["bias"][3] += 0.1
        teacher = dataclasses.replace(teacher, variables=variables)
    seen = counted(monkeypatch)
    label(teacher, manifest, **options)
    assert len(seen) == 11


def test_recordings_that_cannot_be_decoded_are_listed_and_left_out(
    teacher, manifest, monkeypatch, capfd
):
    (manifest.with_name("3.wav")).write_bytes(b"no audio")
    (manifest.with_name("9.wav")).rename(manifest.with_name("moved.wav"))
    with pytest.raises(InputError, match="3.wav"):
        label(teacher, manifest, strict=True)
    path, failures = label(teacher, manifest)
    assert [name for name, _ in failures] == ["3.wav", "9.wav"]
    assert len(read(path)["clip"]) == len(read(path)["probabilities"]) == 9
    assert "3.wav" not in read(path)["clip"]
    listed = pseudo_labels.failures_file(path)
    with open(listed, newline="") as file:
        assert [tuple(row.values()) for row in csv.DictReader(file)] == failures
    assert "left out: " in capfd.readouterr().err
    with pytest.raises(InputError, match="line 5.*no clip '3'"):
        read_manifest(manifest, events_file=path)
    (manifest.with_name("moved.wav")).rename(manifest.with_name("9.wav"))
    seen = counted(monkeypatch)
    assert [name for name, _ in label(teacher, manifest)[1]] == ["3.wav"]
    assert sorted(seen) == ["3.wav", "9.wav"]  # the others are done
    soundfile.write(manifest.with_name("3.wav"), np.full(RATE, 0.1), RATE)
    seen.clear()
    assert label(teacher, manifest)[1] == [] and not listed.exists()
    assert seen == ["3.wav"] and len(read(path)["clip"]) == 11
    assert names(manifest.parent) == ["labels.npz", "my.csv"]


def test_a_full_disk_loses_nothing(teacher, manifest, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(InputError, match="labels.npz can't be written: .*; make space"):
            label(teacher, manifest)
    seen = counted(monkeypatch)
    path, _ = label(teacher, manifest)
    assert seen == [] and len(read(path)["clip"]) == 11


def test_errors(teacher, manifest):
    variables = jax.tree.map(np.copy, teacher.variables)
    variables["params"]["fc1"]["bias"][0] = np.nan
    damaged = dataclasses.replace(teacher, variables=variables)
    other = dataclasses.replace(teacher, events=())
    for bundle, options, message in (
        (teacher, {"clip_seconds": 0.01}, "clip_seconds is 0.01"),
        (teacher, {"out": "labels.csv"}, "ends in .npz"),
        (other, {}, "names no events"),
        (damaged, {}, "not finite"),
    ):
        with pytest.raises(InputError, match=message):
            label(bundle, manifest, **options)
    for path in (*manifest.parent.glob("*.wav"), *manifest.parent.glob("*.partial")):
        path.write_bytes(b"no audio")
    with pytest.raises(InputError, match="my.csv: no clip can be decoded, the last because .*10.w"):
        label(teacher, manifest)


EIGHT = """
import sys
import jax
import numpy as np
from ergl_jax import bundle
from ergl_jax.training import pseudo_labels
split_batch = pseudo_labels.split_batch
def checked(function, variables):
    run = split_batch(function, variables)
    assert {shard.data.shape for shard in run(rows).addressable_shards} == {(1, 527)}
    program = run.func.lower(*run.args, rows).compile().as_text()
    assert "fft(" in program and "all-gather" not in program
    return run
pseudo_labels.split_batch = checked
rows = np.load(sys.argv[2])
assert len(jax.devices()) == 8
found = pseudo_labels._tag(bundle.load(sys.argv[1]), 3, ((i, 1, row) for i, row in enumerate(rows)))
np.save(sys.argv[3], np.stack([row for _, _, row in found]))
"""


@pytest.mark.slow
def test_eight_devices_share_a_batch(teacher, tmp_path, monkeypatch):
    rows = np.random.default_rng(0).standard_normal((8, int(SECONDS * RATE)), np.float32)
    np.save(tmp_path / "rows.npy", rows)
    teacher.save(tmp_path / "teacher")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    paths = [str(tmp_path / name) for name in ("teacher", "rows.npy", "found.npy")]
    subprocess.run([sys.executable, "-c", EIGHT, *paths], check=True)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, one_by_one(teacher, rows), rtol=0, atol=1e-6)
