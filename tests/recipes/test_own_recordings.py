"""A run from a folder of recordings: splits, events, settings, and the equal command of run.py."""

import dataclasses
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from configs import ergl
from ergl_jax.bundle import load
from ergl_jax.config import Config
from ergl_jax.datasets import labelled
from ergl_jax.datasets.manifest import read_manifest
from ergl_jax.errors import InputError
from ergl_jax.recipes import own_recordings as own
from ergl_jax.training import workdirs

RATE = 8000


def record(path, seconds=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * RATE), 0.1), RATE)


@pytest.fixture
def folder(tmp_path):
    """Ten recordings each of dogs and of rain; those of rain in two folders."""
    for i in range(10):
        record(tmp_path / "clips" / "dog" / f"{i}.wav")
        record(tmp_path / "clips" / "rain" / f"session{i % 2}" / f"{i}.flac")
    record(tmp_path / "clips" / ".cache" / "a.wav")
    return tmp_path / "clips"


def splits(corpus):
    """The splits of each class's groups."""
    found = {}
    for clip in corpus.clips:
        found.setdefault((corpus.scenes[clip.scene], clip.group), set()).add(clip.split)
    return found


def test_a_folder_is_split_by_recording_or_subfolder(folder):
    corpus = labelled.read_folder(folder)
    assert corpus.scenes == ("dog", "rain") and len(corpus.clips) == 20
    divided, lines = own.split(corpus)
    found = splits(divided)
    assert all(len(each) == 1 for each in found.values())
    dogs = [each for (scene, _), (each,) in found.items() if scene == "dog"]
    assert len(dogs) == 10 and dogs.count("test") == 2 and dogs.count("validation") == 2
    rain = [group for scene, group in found if scene == "rain"]
    assert {Path(group).name for group in rain} == {"session0", "session1"}
    # A half of the class is too much to hold out.
    assert [line.split(":")[0] for line in lines if line.startswith("No ")] == [
        "No validation clip of rain",
        "No test clip of rain",
    ]
    again, _ = own.split(corpus)
    placed = [[(c.name, c.scene, c.split, c.group) for c in x.clips] for x in (again, divided)]
    assert placed[0] == placed[1]


def test_copies_of_training_clips_are_found(tmp_path):
    """By content alone, also where all files are of one size and begin alike."""
    rng, head = np.random.default_rng(0), bytes(70_000)
    for split, count in (("train", 4), ("validation", 2), ("test", 2)):
        for scene in ("a", "b"):
            path = tmp_path / split / scene / "x"
            path.mkdir(parents=True)
            for i in range(count):
                (path / f"{i}.wav").write_bytes(head + rng.bytes(100))
    pairs = (("test/b/x/1.wav", "train/a/x/3.wav"), ("validation/a/x/0.wav", "train/a/x/3.wav"))
    copies = [tuple(str(tmp_path / path) for path in pair) for pair in pairs]
    for copy, path in copies:
        shutil.copy(path, copy)
    for split in ("train", "test"):
        (tmp_path / split / "b" / "x" / "empty.wav").touch()  # no recording
    corpus = labelled.read_folder(tmp_path)
    # Two equal training clips, or two equal test clips, are no leak.
    shutil.copy(tmp_path / "train/a/x/0.wav", tmp_path / "train/a/x/1.wav")
    shutil.copy(tmp_path / "test/a/x/0.wav", tmp_path / "test/a/x/1.wav")
    assert own.find_copies(corpus) == copies
    Path(copies[0][0]).unlink()
    assert own.find_copies(corpus) == copies[1:]


def test_folders_named_by_split(folder, tmp_path):
    for split, names in (("train", range(6)), ("Val", range(6, 8)), ("test", range(8, 10))):
        for scene in ("dog", "rain"):
            for i in names:
                record(tmp_path / "split" / split / scene / f"{i}.wav")
    corpus = labelled.read_folder(tmp_path / "split")
    counts = [sum(clip.split == x for clip in corpus.clips) for x in own.SPLITS]
    assert corpus.scenes == ("dog", "rain") and counts == [12, 4, 4]
    assert own.split(corpus)[0] is corpus


def test_wrong_folders(folder, tmp_path):
    (folder / "cat").mkdir()
    with pytest.raises(InputError, match="cat"):
        labelled.read_folder(folder)
    for wrong, reason in {
        folder / "dog": "no class folders: move each recording",
        folder / "cat": "no class folders: put each recording",
        folder / "dog" / "0.wav": "a file, not a folder",
        tmp_path / "none": "no such folder",
    }.items():
        with pytest.raises(InputError, match=f"{wrong}.*{reason}"):
            labelled.read_folder(wrong)


def test_a_group_is_the_first_folder_below_the_class(tmp_path):
    for name in ("dog/day0/left/0.wav", "dog/day0/right/0.wav", "dog/day1/0.wav", "rain/0.wav"):
        record(tmp_path / name)
    groups = [clip.group for clip in labelled.read_folder(tmp_path).clips]
    names = ("dog/day0", "dog/day0", "dog/day1", "rain/0.wav")
    assert groups == [str(tmp_path / name) for name in names]


def test_folders_of_splits_and_others(folder, tmp_path):
    for name in ("train/dog", "train/rain", "test/dog", "test/rain"):
        record(tmp_path / "split" / name / "0.wav")
    assert labelled.read_folder(tmp_path / "split").scenes == ("dog", "rain")
    (tmp_path / "split" / "extra").mkdir()
    with pytest.raises(InputError, match="extra is next to split folders"):
        labelled.read_folder(tmp_path / "split")
    shutil.rmtree(tmp_path / "split" / "extra")
    for stray in ("train/a.wav", "test/b.wav"):  # without these folders being classes
        record(tmp_path / "split" / stray)
        reason = f"{stray[:-6]} has a split's name, but contains {stray[-5:]}"
        with pytest.raises(InputError, match=reason):
            labelled.read_folder(tmp_path / "split")
    shutil.rmtree(tmp_path / "split" / "test")
    (tmp_path / "split" / "test").mkdir()
    (tmp_path / "split" / "train" / "a.wav").unlink()
    with pytest.raises(InputError, match="test has a split's name, but has no class folders"):
        labelled.read_folder(tmp_path / "split")
    record(tmp_path / "split" / "test" / "dog" / "0.wav")
    record(tmp_path / "split" / "train" / "b.wav")  # a stray file beside classes
    with pytest.raises(InputError, match="train has a split's name, but contains b.wav"):
        labelled.read_folder(tmp_path / "split")
    record(folder / "train" / "0.wav")  # a class, of trains
    assert labelled.read_folder(folder).scenes == ("dog", "rain", "train")


def test_recordings_outside_of_classes_are_reported(folder, capsys):
    labelled.read_folder(folder)
    assert capsys.readouterr().err == ""
    for name in ("b.wav", "a.wav", ".hidden.wav"):
        record(folder / name)
    assert labelled.read_folder(folder).scenes == ("dog", "rain")
    (line,) = capsys.readouterr().err.splitlines()
    assert str(folder) in line and line.endswith(": 2, such as a.wav")


def test_what_cannot_be_trained(folder, tmp_path):
    corpus = labelled.read_folder(folder)
    with pytest.raises(InputError, match="two classes"):
        own.split(dataclasses.replace(corpus, scenes=("dog",)))
    clips = [dataclasses.replace(clip, split="test") for clip in corpus.clips]
    with pytest.raises(InputError, match="'dog' has no training clip .only test.: move some"):
        own.split(dataclasses.replace(corpus, clips=clips))
    clips = [dataclasses.replace(c, split=("test", "train")[c.scene]) for c in corpus.clips]
    clips.append(dataclasses.replace(clips[-1], name="last", split="validation"))
    with pytest.raises(InputError, match="'dog' has no training clip .only test."):
        own.split(dataclasses.replace(corpus, clips=clips))
    bad = dataclasses.replace(corpus, clips=[dataclasses.replace(clips[0], name="\udcff.wav")])
    with pytest.raises(InputError, match="not UTF-8"):
        own.write_manifest(bad, tmp_path / "manifest.csv")
    assert not (tmp_path / "manifest.csv").exists()


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, {"train": 12, "validation": 4, "test": 4}),
        (
            {"split": lambda i: "train" if i < 5 else "test"},
            {"train": 8, "validation": 2, "test": 10},
        ),
        ({"fold": lambda i: i % 5 + 1}, {"train": 12, "validation": 4, "test": 4}),
    ],
)
def test_a_manifest_with_and_without_splits(tmp_path, columns, expected):
    lines = [",".join(["file", "scene", *columns])]
    for i in range(10):
        for scene in ("a", "b"):
            lines.append(
                ",".join([f"{scene}{i}.wav", scene, *(str(f(i)) for f in columns.values())])
            )
    (tmp_path / "my.csv").write_text("\n".join(lines))
    corpus, _ = labelled.read_listed(tmp_path / "my.csv")
    divided, _ = own.split(corpus)
    found = {x: sum(clip.split == x for clip in divided.clips) for x in own.SPLITS}
    assert found == expected
    assert divided.clips[0].name == str(tmp_path / "a0.wav")


def test_which_classes_are_sounds():
    sounds = "dog rooster crackling_fire clock_tick sneezing helicopter sea_waves".split()
    places = "airport shopping_mall park public_square tram street_pedestrian".split()
    assert all(map(own.is_sound, sounds)) and not any(map(own.is_sound, places))


def test_classes_become_events_only_if_all_are_sounds(folder):
    corpus = labelled.read_folder(folder)
    with_events, _ = own.with_events(corpus)
    assert with_events.events == ("dog", "rain")
    for clip in with_events.clips:
        assert clip.events.tolist() == [clip.scene == 0, clip.scene == 1]
    places = dataclasses.replace(corpus, scenes=("dog", "park"))
    assert own.with_events(places)[0].events == ()
    assert own.with_events(places, forced=True)[0].events == ("dog", "park")
    assert own.with_events(with_events)[0] is with_events


def test_the_written_manifest_is_the_corpus(folder, tmp_path):
    corpus, _ = own.with_events(own.split(labelled.read_folder(folder))[0])
    path = tmp_path / "manifest.csv"
    own.write_manifest(corpus, path)
    found = read_manifest(path)
    assert found.scenes == corpus.scenes and found.events == corpus.events
    for mine, theirs in zip(corpus.clips, found.clips, strict=True):
        assert (mine.name, mine.scene, mine.split, mine.group) == dataclasses.astuple(theirs)[:4]
        assert np.array_equal(mine.events, theirs.events)
        assert len(theirs.load(RATE, "mean")) == 0.1 * RATE
    fewer = dataclasses.replace(corpus, clips=corpus.clips[1:])
    own.check_unchanged(fewer, path)  # nothing was trained yet
    (tmp_path / "checkpoints").mkdir()
    own.check_unchanged(corpus, path)
    with pytest.raises(InputError, match="have changed since .* was trained on"):
        own.check_unchanged(fewer, path)
    assert read_manifest(path).scenes == corpus.scenes
    assert own.without_events(found).events == ()
    own.write_manifest(own.without_events(found), path.with_name("bare.csv"))
    assert read_manifest(path.with_name("bare.csv")).events == ()
    taken = dataclasses.replace(corpus, name="predictions")
    assert own.manifest_path(taken, tmp_path).name == "predictions_recordings.csv"


def test_clips_held_out_that_a_bundle_was_trained_on(folder, tmp_path):
    corpus, _ = own.split(labelled.read_folder(folder))
    (tmp_path / "run").mkdir()
    manifest = tmp_path / "run" / "clips.csv"
    own.write_manifest(corpus, manifest)
    fields = {"data.source": "folder", "data.manifest": str(manifest)}
    workdirs.write_json(tmp_path / "run/config.json", Config().replace(**fields).to_dict())
    assert own.count_trained_before(tmp_path / "run", corpus) == 0
    splits = {"train": "test", "test": "train", "validation": "validation"}
    clips = [dataclasses.replace(clip, split=splits[clip.split]) for clip in corpus.clips]
    count = sum(clip.split == "test" for clip in clips)
    swapped = dataclasses.replace(corpus, clips=clips)
    assert own.count_trained_before(tmp_path / "run", swapped) == count > 0
    assert own.count_trained_before(tmp_path / "elsewhere", swapped) is None
    assert own.count_trained_before("hf://owner/name", swapped) is None


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([5.0] * 9, (5.0, "crop")),
        ([5.003] * 9, (5.0, "crop")),
        ([0.2] * 9, (1.0, "crop")),
        ([3.6, 4.4, 4.9], (5.0, "crop")),
        ([60.0] * 9, (10.0, "windows")),
        ([2.0] * 18 + [60.0, 70.0], (2.0, "windows")),
    ],
)
def test_clip_length(seconds, expected):
    assert own.clip_length(np.array(seconds)) == expected


def test_the_preset_is_the_printed_command_of_run_py(folder, tmp_path, tiny):
    corpus, _ = own.with_events(own.split(labelled.read_folder(folder))[0])
    fields = dict(
        map(own.parse_field, ["train.epochs=3", "augment.roll=False", "model.channels=8"])
    )
    config = own.preset(
        corpus, own.lengths(corpus), tmp_path / "my run", num_events=2, fields=fields
    )
    assert (config.train.epochs, config.augment.roll, config.model.channels) == (3, False, 8)
    assert (config.data.clip_seconds, config.model.name, config.data.num_events) == (1.0, "ergl", 2)

    python, run, *flags = shlex.split(own.run_command(config, tmp_path / "my run"))
    assert (python, run, flags[0]) == ("python", "run.py", "--config=configs/ergl.py:folder")
    assert flags[-1] == f"--workdir={tmp_path / 'my run'}"
    changed = dict(own.parse_field(flag.removeprefix("--config.")) for flag in flags[1:-1])
    base = Config.from_dict(
        ergl.get_config("folder").unlock().to_dict()
        | {"data": {**ergl.get_config("folder").data.to_dict(), "manifest": "x"}}
    )
    assert base.replace(**changed) == config

    few = dataclasses.replace(corpus, clips=[c for c in corpus.clips if c.split == "train"][:2])
    once = own.preset(few, np.ones(3), tmp_path, num_events=2, fields={"train.epochs": 1})
    assert (once.train.batch_size, once.optimizer.warmup_epochs) == (1, 0.0)

    long = {"data.clip_seconds": 2.0}
    short = own.preset(corpus, np.full(3, 10.0), tmp_path, num_events=2, fields=long)
    assert (short.data.clip_seconds, short.data.long) == (2.0, "windows")

    init = load(tiny.workdir)
    init = dataclasses.replace(init, front_end=init.front_end.with_channel("right"))
    fields = {"model.init_from": str(tiny.workdir)}
    begun = own.preset(corpus, np.ones(3), tmp_path, num_events=0, init=init, fields=fields)
    assert begun.model.name == "cnn" and begun.model.encoder.architecture == "cnn6"
    assert begun.data.front_end == f"{init.front_end.name}:right"


@pytest.mark.parametrize("text", ["train.epochs", "train.epoch=3", "train.epochs=three"])
def test_a_wrong_setting(text, folder, tmp_path):
    corpus = labelled.read_folder(folder)
    with pytest.raises(InputError, match="train.epoch"):
        fields = dict([own.parse_field(text)])
        own.preset(corpus, np.ones(3), tmp_path, num_events=2, fields=fields)


def test_what_happens_to_longer_recordings_is_said():
    assert own.about_length(np.array([5.0, 4.0]), 5.0, "crop") == "Clips of 5 s."
    text = own.about_length(np.array([5.0, 300.0]), 5.0, "windows")
    assert (
        "1 of 2 measured recordings are longer (up to 300.0 s) and are cut into several clips"
        in text
    )
