"""mix_soundscapes.py: its clips are complete, true, reproducible, and training opens them."""

import csv
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from configs import ergl
from ergl_jax.audio import get_front_end
from ergl_jax.datasets import sources
from ergl_jax.datasets.event_times import activity, annotate
from ergl_jax.datasets.manifest import read_manifest

RATE = 8000
SCENES = """
events: {Dog: dog_bark, Rain: rain, Sneeze: person_sneeze}
scenes:
  over:
    background: {noise: 0, level: -50}
    parts: [{events: [Dog, Rain], how: over, times: [1, 2], seconds: [0.2, 0.5], level: [10, 20]}]
  in_turn:
    background: {noise: 0, level: -50}
    parts:
      - {events: [Dog, Rain], how: in_turn, times: [1, 2], seconds: [0.2, 0.5], level: [10, 20]}
      - {events: [Sneeze], times: 1, seconds: 0.5, level: 10, chance: 0.5}
  rainy:
    background: {event: Rain, level: -40}
    parts: [{events: [Dog], times: 1, seconds: 0.5, level: 10}]
"""


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("data_prep/mix_soundscapes.py")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """ESC-10's layout: two recordings of one source a label and fold, with silent ends."""
    folder, rng = tmp_path_factory.mktemp("esc10"), np.random.default_rng(0)
    rows = ["filename,label,fold,source,licence,author"]
    for fold in (1, 2, 3, 4):
        for label in ("dog_bark", "rain", "person_sneeze"):
            for take in "AB":
                wave = np.zeros(RATE)
                wave[2000:6000] = rng.uniform(-0.5, 0.5, 4000)
                (folder / label).mkdir(exist_ok=True)
                soundfile.write(folder / label / f"{fold}-{take}.wav", wave, RATE)
                rows.append(f"{label}/{fold}-{take}.wav,{label},{fold},{label}{fold},CC0,someone")
    (folder / "meta.csv").write_text("\n".join(rows))
    (folder / "scenes.yaml").write_text(SCENES)
    return folder


@pytest.fixture(scope="module")
def run(script, recordings):
    def run(out, *more):
        flags = [f"--recordings={recordings}", f"--scenes={recordings}/scenes.yaml", f"--out={out}"]
        small = ["--seconds=2", f"--sample_rate={RATE}", "--clips_per_scene=3"]
        return script.main([*flags, *small, *more])

    return run


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """36 clips. Not to be written to."""
    out = tmp_path_factory.mktemp("made") / "new"
    assert run(out) == 0
    return out


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_folder(made):
    manifest = rows(made / "manifest.csv")
    names = {"audio", "manifest.csv", "manifest.events.npz", "annotations.csv", "settings.json"}
    assert {path.name for path in made.iterdir()} == names
    assert {row["file"] for row in manifest} == {f"audio/{p.name}" for p in made.glob("audio/*")}
    assert Counter(row["scene"] for row in manifest) == dict(over=12, in_turn=12, rainy=12)
    assert Counter((row["split"], row["fold"], row["group"]) for row in manifest) == {
        ("train", "1", "fold1"): 9,
        ("train", "2", "fold2"): 9,
        ("validation", "3", "fold3"): 9,
        ("test", "4", "fold4"): 9,
    }
    assert {row["licence"] for row in manifest} == {"CC0"}
    labels = {"Dog": "dog_bark", "Rain": "rain", "Sneeze": "person_sneeze"}
    for row in rows(made / "annotations.csv"):  # no source is in two folds
        fold = row["clip"].split("-fold")[1][0]
        assert row["source"] == f"{labels[row['event']]}{fold}" and row["author"] == "someone"
    for row in manifest:
        info = soundfile.info(made / row["file"])
        assert (info.frames, info.samplerate, info.channels) == (2 * RATE, RATE, 1)
        assert np.abs(soundfile.read(made / row["file"])[0]).max() < 0.9


def test_annotations_agree_with_the_audio_and_the_events(made):
    annotations = rows(made / "annotations.csv")
    corpus = read_manifest(made / "manifest.csv")
    assert corpus.events == ("Dog", "Rain", "Sneeze")
    for clip in corpus.clips:
        sounds = [row for row in annotations if row["clip"] == clip.name]
        held = {row["event"] for row in sounds}
        np.testing.assert_array_equal(clip.events, [event in held for event in corpus.events])
        spans = {row["event"]: [] for row in sounds}
        for row in sounds:
            spans[row["event"]].append((float(row["onset"]), float(row["offset"])))
        if corpus.scenes[clip.scene] == "rainy":
            assert spans["Rain"] == [(0.0, 2.0)]
            continue
        overlap = any(a < d and c < b for a, b in spans["Dog"] for c, d in spans["Rain"])
        assert overlap == (corpus.scenes[clip.scene] == "over")

        # 10 ms frames far above the noise are those of the sounds.
        wave = clip.load(RATE)
        loud = 10 * np.log10(np.mean(wave.reshape(-1, RATE // 100) ** 2, axis=1)) > -46
        middle = (np.arange(200) + 0.5) / 100
        onsets, offsets = np.array([x for each in spans.values() for x in each]).T[:, :, None]
        near = ((onsets - 0.006 <= middle) & (middle < offsets + 0.006)).any(axis=0)
        inside = ((onsets + 0.015 <= middle) & (middle < offsets - 0.015)).any(axis=0)
        assert np.all(loud[inside]) and not np.any(loud[~near])


def test_more_clips_and_another_seed(made, run, tmp_path):
    assert run(tmp_path / "fewer", "--clips_per_scene=1") == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("fewer/audio/*")}
    assert len(before) == 12
    assert run(tmp_path / "fewer") == 0
    assert contents(tmp_path / "fewer") == contents(made)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert run(tmp_path / "other", "--seed=1", "--clips_per_scene=1") == 0
    other, old = contents(tmp_path / "other"), contents(made)
    assert all(data != old[name] for name, data in other.items() if "audio" in name)


def test_interrupted_it_resumes(script, made, run, tmp_path, monkeypatch, capsys):
    write, written = soundfile.write, []

    def stopped(path, *arguments, **settings):
        write(path, *arguments, **settings)
        if len(written) == 5:
            Path(path).write_bytes(Path(path).read_bytes()[:100])
            raise KeyboardInterrupt
        written.append(path)

    out = tmp_path / "new"
    monkeypatch.setattr(script.soundfile, "write", stopped)
    assert run(out) == 130
    assert "the same command" in capsys.readouterr().err
    kept = {path: path.stat().st_mtime_ns for path in out.glob("audio/*")}
    assert len(kept) == 5 and not (out / "manifest.csv").exists()
    monkeypatch.setattr(script.soundfile, "write", write)
    assert run(out) == 0
    assert contents(out) == contents(made)
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())


@pytest.mark.parametrize(
    "flag, reason",
    [
        ("--seed=1", "settings.json: the clips there have another seed"),
        ("--clips_per_scene=0", "--clips_per_scene: 0: give a number from 1 to"),
        ("--seconds=nan", "--seconds: nan: give a number from 0.5 to 3600"),
        ("--seconds=long", "--seconds"),
        ("--seconds=1", "scenes.over.parts[0]: 4 sounds of up to 0.5 s don't fit into 1 s"),
        ("--test_folds=2", "--test_folds: fold 2 is in train already"),
        ("--test_folds=9", "event 'Dog': fold 9 has no recording with the label dog_bark"),
        ("--scenes=nowhere.yaml", "nowhere.yaml can't be read"),
        ("--recordings=.", "meta.csv can't be read: No such file"),
    ],
)
def test_a_mistake_is_one_line_and_status_two(
    made, run, tmp_path, monkeypatch, capsys, flag, reason
):
    monkeypatch.chdir(tmp_path)
    before = contents(made)
    assert run(made, flag) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and reason in line
    assert contents(made) == before and not list(tmp_path.iterdir())


@pytest.mark.parametrize("mistake", ["missing", "silent", "not audio"])
def test_a_wrong_recording_is_named(script, tmp_path, capsys, mistake):
    (tmp_path / "meta.csv").write_text("filename,label,fold,source\na.wav,dog_bark,1,x\n")
    if mistake == "silent":
        soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    elif mistake == "not audio":
        (tmp_path / "a.wav").write_text("text")
    parts = "[{events: [Dog], times: 1, seconds: 1, level: 3}]"
    scene = f"{{background: {{noise: 0, level: -40}}, parts: {parts}}}"
    (tmp_path / "a.yaml").write_text(f"events: {{Dog: dog_bark}}\nscenes: {{park: {scene}}}")
    flags = ["--train_folds=1", "--validation_folds=", "--test_folds=", f"--out={tmp_path}/out"]
    assert script.main([*flags, f"--recordings={tmp_path}", f"--scenes={tmp_path}/a.yaml"]) == 2
    assert str(tmp_path / "a.wav") in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob("out/audio/*"))


def test_times_of_the_annotations_have_the_shares(made, run, tmp_path):
    shares = tmp_path / "shares"
    shutil.copytree(made, shares)
    assert run(shares, "--labels=share") == 0
    corpus = read_manifest(shares / "manifest.csv")
    front_end = replace(get_front_end("panns_16k"), sample_rate=RATE)
    place = {"start": 0, "recorded": 2 * RATE, "length": 2 * RATE, "pad": "zero"}
    weights = np.full(101, front_end.hop)
    weights[[0, -1]] //= 2  # half of these frames' samples are outside the clip
    for clip in annotate(corpus, shares / "annotations.csv", shares / "manifest.csv").clips:
        found = weights @ activity(clip, 3, front_end, **place) / (2 * RATE)
        np.testing.assert_allclose(found, clip.events, atol=1e-3)


def test_training_opens_it(made, tmp_path):
    config = ergl.get_config("folder").data
    config.manifest, config.data_dir = str(made / "manifest.csv"), str(tmp_path)
    config.front_end, config.clip_seconds, config.num_events = "panns_16k", 2.0, 3
    dataset = sources.open_dataset(config)
    assert dataset.sizes == {"train": 18, "validation": 9, "test": 9}
    assert dataset.scenes == ("in_turn", "over", "rainy") and not dataset.failures
    config.test_folds, config.validation_folds = ("1",), ("2",)
    clips = sources.corpus(config).clips
    assert {clip.split for clip in clips if clip.group == "fold1"} == {"test"}
