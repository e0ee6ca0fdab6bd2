"""rank_events.py: only the training split counts, and configurations take its list."""

import os
from pathlib import Path

import numpy as np
import pytest

from ergl_jax.datasets import splits
from ergl_jax.datasets.events import choose_events, read_list
from ergl_jax.datasets.manifest import read_manifest
from ergl_jax.labels import AUDIOSET

TAGS = Path(os.environ.get("ERGL_SHARED_DATA", "no such directory")) / "tut2018_tags.npz"


@pytest.fixture(scope="module")
def main(load_script):
    return load_script("data_prep/rank_events.py").main


def table(printed):
    """rank, event, accumulated, mean of each line of the table."""
    rows = [line.split() for line in printed.splitlines()[1:-1]]
    return [(int(r[0]), " ".join(r[1:-2]), float(r[-2]), float(r[-1])) for r in rows]


@pytest.fixture
def flags(tmp_path):
    """40 clips, 20 to train at ten places; an event that would win by its test clips."""
    rows = ["file,scene,split,fold,group"]
    for i in range(40):
        split = "train" if i < 20 else "test"
        rows.append(f"audio/{i}.wav,{'bus' if i % 2 else 'tram'},{split},{i // 10},place{i // 2}")
    (tmp_path / "my.csv").write_text("\n".join(rows))
    probabilities = np.random.default_rng(0).random((40, 4))
    probabilities[20:, 3] = 1
    probabilities[:20, 3] /= 4
    order = np.random.default_rng(1).permutation(40)
    labels = dict(clip=[str(i) for i in order], events=["Speech", "Walk, footsteps", "Dog", "Rain"])
    np.savez(tmp_path / "labels.npz", **labels, probabilities=probabilities[order])
    return [f"--labels={tmp_path}/labels.npz", f"--manifest={tmp_path}/my.csv"]


@pytest.mark.parametrize(
    "more", [[], ["--validation_seed=3"], ["--test_folds=1", "--validation_folds=2,3"]]
)
def test_it_ranks_what_training_ranks(main, flags, tmp_path, capsys, more):
    """Clips held out for validation are no training clips."""
    assert main([*flags, "--top=3", *more]) == 0
    folds = {"test_folds": [1], "validation_folds": [2, 3]} if len(more) == 2 else {}
    clips = read_manifest(tmp_path / "my.csv", events_file=tmp_path / "labels.npz", **folds)
    held = splits.hold_out_groups(clips, 0.3, 3 if len(more) == 1 else 0)
    train = np.stack([clip.events for clip in held.clips if clip.split == "train"])
    chosen = choose_events(clips.events, train, count=3)
    names = [clips.events[index] for index in chosen]
    assert 3 not in chosen and read_list(str(tmp_path / "labels.top3.txt")) == names
    printed = capsys.readouterr().out
    sums = train.sum(axis=0)[chosen]
    for (rank, name, total, mean), *expected in zip(
        table(printed), (1, 2, 3), names, sums, strict=True
    ):
        assert [rank, name] == expected[:2] and total == pytest.approx(expected[2], abs=0.006)
        assert mean == pytest.approx(expected[2] / len(train), abs=6e-5)
    assert printed.splitlines()[-1].startswith(f"3 events by {len(train)} training clips: --config")


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ("--top=5", "--top=5: {}/labels.npz has 4 events"),
        ("--manifest=none.csv", "none.csv"),
        ("--test_folds=0,1,2,3", "no training clips"),
        ("--validation_fraction=1", "--validation_fraction: 1: give a number from 0"),
        ("--out=.", "directory"),
    ],
)
def test_a_mistake_is_one_line_and_status_two(main, flags, tmp_path, capsys, more, part):
    before = set(tmp_path.iterdir())
    assert main([*flags, "--top=2", more]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == "" and part.format(tmp_path) in line and set(tmp_path.iterdir()) == before


@pytest.mark.skipif(not TAGS.is_file(), reason="no tut2018_tags.npz under ERGL_SHARED_DATA")
@pytest.mark.parametrize("held_out", [0.0, 0.3])
def test_the_published_tags_of_tut2018_begin_as_the_papers_list(main, tmp_path, capsys, held_out):
    """Over all clips, and without those that would be held out for validation."""
    clips = np.load(TAGS)["clip"]
    rows = [f"audio/{c}.wav,{c.split('-')[0]},train,{'-'.join(c.split('-')[1:3])}" for c in clips]
    (tmp_path / "tut.csv").write_text("\n".join(["file,scene,split,group", *rows]))
    flags = [f"--labels={TAGS}", f"--manifest={tmp_path}/tut.csv", f"--out={tmp_path}/events.txt"]
    assert main([*flags, f"--validation_fraction={held_out}"]) == 0
    names = read_list(str(tmp_path / "events.txt"))
    assert names[:5] == ["Speech", "Vehicle", "Music", "Silence", "Animal"]
    assert len(names) == 25 and set(names) <= set(AUDIOSET)
    if not held_out:
        frequent = np.load(TAGS)["tags"].sum(axis=0, dtype=int)
        wanted = [frequent[AUDIOSET.index(name)] for name in names]
        found = [row[2] for row in table(capsys.readouterr().out)]
        assert found == wanted == sorted(wanted, reverse=True)
