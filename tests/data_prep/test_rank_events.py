"""rank_events.py: the training split alone is counted, and its list is what configurations take."""

import os
from pathlib import Path

import numpy as np
import pytest

from ergl_jax.datasets import splits
from ergl_jax.datasets.events import choose_events, read_list
from ergl_jax.datasets.manifest import read_manifest
from ergl_jax.labels import AUDIOSET

SHARED = Path(os.environ.get("ERGL_SHARED_DATA", "no such directory"))
TAGS = SHARED / "tut2018_tags.npz"


@pytest.fixture(scope="module")
def main(load_script):
    return load_script("data_prep/rank_events.py").main


def table(printed):
    """rank, event, accumulated, mean of each line of the table."""
    rows = [line.split() for line in printed.splitlines()[1:-1]]
    return [(int(r[0]), " ".join(r[1:-2]), float(r[-2]), float(r[-1])) for r in rows]


@pytest.fixture
def corpus(tmp_path):
    """40 clips, 20 to train at ten places, and labels of which the test clips' would win."""
    rows = ["file,scene,split,fold,group"]
    for i in range(40):
        split = "train" if i < 20 else "test"
        rows.append(f"audio/{i}.wav,{'bus' if i % 2 else 'tram'},{split},{i // 10},place{i // 2}")
    (tmp_path / "my.csv").write_text("\n".join(rows))
    probabilities = np.random.default_rng(0).random((40, 4))
    probabilities[20:, 3] = 1
    probabilities[:20, 3] /= 4
    order = np.random.default_rng(1).permutation(40)
    np.savez(
        tmp_path / "labels.npz",
        clip=[str(i) for i in order],
        events=["Speech", "Walk, footsteps", "Dog", "Rain"],
        probabilities=probabilities[order],
    )
    return probabilities


def test_table_and_list(main, corpus, tmp_path, capsys):
    flags = [f"--labels={tmp_path}/labels.npz", f"--manifest={tmp_path}/my.csv"]
    assert main([*flags, "--top=3", "--validation_fraction=0"]) == 0
    printed = capsys.readouterr().out
    sums = corpus[:20].sum(axis=0)
    names = ["Speech", "Walk, footsteps", "Dog", "Rain"]
    order = np.argsort(-sums)[:3]
    assert 3 not in order
    for (rank, name, total, mean), at, number in zip(table(printed), order, (1, 2, 3), strict=True):
        assert (rank, name) == (number, names[at])
        assert total == pytest.approx(sums[at], abs=0.006)
        assert mean == pytest.approx(sums[at] / 20, abs=6e-5)
    out = tmp_path / "labels.top3.txt"
    assert printed.splitlines()[-1] == f"3 events by 20 training clips: --config.data.events={out}"
    assert read_list(str(out)) == [names[at] for at in order]


@pytest.mark.parametrize(
    "more", [[], ["--validation_seed=3"], ["--test_folds=1", "--validation_folds=2,3"]]
)
def test_it_ranks_what_training_ranks(main, corpus, tmp_path, capsys, more):
    """The clips held out for validation are no training clips, here as there."""
    out = tmp_path / "new" / "list.txt"
    flags = [f"--labels={tmp_path}/labels.npz", f"--manifest={tmp_path}/my.csv", f"--out={out}"]
    assert main([*flags, "--top=4", *more]) == 0
    folds = {"test_folds": [1], "validation_folds": [2, 3]} if len(more) == 2 else {}
    clips = read_manifest(tmp_path / "my.csv", events_file=tmp_path / "labels.npz", **folds)
    held = splits.hold_out_groups(clips, 0.3, 3 if len(more) == 1 else 0)
    train = np.stack([clip.events for clip in held.clips if clip.split == "train"])
    assert len(train) == (10 if len(more) == 2 else 14)
    chosen = choose_events(clips.events, train, ranking="", count=4)
    assert read_list(str(out)) == [clips.events[index] for index in chosen]
    printed = table(capsys.readouterr().out)
    sums = train.sum(axis=0)[chosen]
    np.testing.assert_allclose([row[2] for row in printed], sums, atol=0.006)


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--top=5"], ["--top=5", "4 events"]),
        (["--top=0"], ["--top=0"]),
        (["--labels=none.npz"], ["none.npz"]),
        (["--manifest=none.csv"], ["none.csv"]),
        (["--test_folds=0,1,2,3"], ["no training clips"]),
        (["--out=."], ["directory"]),
    ],
)
def test_a_mistake_is_one_line_and_status_two(main, corpus, tmp_path, capsys, flags, parts):
    given = [f"--labels={tmp_path}/labels.npz", f"--manifest={tmp_path}/my.csv", "--top=2"]
    before = set(tmp_path.iterdir())
    assert main([*given, *flags]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == "" and line.startswith("error: ") and all(part in line for part in parts)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.skipif(not TAGS.is_file(), reason="no tut2018_tags.npz under ERGL_SHARED_DATA")
@pytest.mark.parametrize("held_out", [0.0, 0.3])
def test_the_published_tags_of_tut2018_begin_as_the_papers_list(main, tmp_path, capsys, held_out):
    """Over all clips, and without those that would be held out for validation."""
    clips = np.load(TAGS)["clip"]
    rows = [f"audio/{c}.wav,{c.split('-')[0]},train,{'-'.join(c.split('-')[1:3])}" for c in clips]
    manifest = tmp_path / "tut.csv"
    manifest.write_text("\n".join(["file,scene,split,group", *rows]))
    out = tmp_path / "events.txt"
    flags = [f"--labels={TAGS}", f"--manifest={manifest}", f"--out={out}"]
    assert main([*flags, f"--validation_fraction={held_out}"]) == 0
    names = read_list(str(out))
    assert names[:5] == ["Speech", "Vehicle", "Music", "Silence", "Animal"]
    assert len(names) == 25 and set(names) <= set(AUDIOSET)
    printed = capsys.readouterr().out
    print(printed)
    if not held_out:
        frequent = np.load(TAGS)["tags"].sum(axis=0, dtype=int)
        wanted = [frequent[AUDIOSET.index(name)] for name in names]
        assert [row[2] for row in table(printed)] == wanted == sorted(wanted, reverse=True)
        assert printed.splitlines()[-1].startswith("25 events by 8640 training clips")
