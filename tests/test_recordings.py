"""Real recordings from the file to the evaluation, where they are to be had."""

import csv
import os
from pathlib import Path

import pytest
from programs import python

CLIPS = Path(os.environ.get("ERGL_SHARED_DATA", "not given")) / "urban_clips"


def write_manifest(path: Path, split: str) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "scene", "split", "event:Speech", "event:Vehicle"])
        for index, clip in enumerate(sorted(CLIPS.glob("*.wav"))):
            writer.writerow([clip, clip.stem, split, index / 10, 1 - index / 10])
    return path


def command(script: str, *arguments: str) -> str:
    """What the script prints, both streams; its warnings are errors."""
    done = python("-W", "error::UserWarning", script, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS.is_dir(), reason="no urban_clips under ERGL_SHARED_DATA")
def test_urban_clips_are_prepared_trained_on_and_evaluated_without_a_warning(tmp_path):
    train, test = (write_manifest(tmp_path / f"{split}.csv", split) for split in ("train", "test"))
    data = tmp_path / "prepared"
    said = [
        command("data_prep/prepare_dataset.py", f"--manifest={test}", f"--data_dir={data}"),
    ]
    settings = [
        "--config=configs/test.py",
        "--config.data.source=folder",
        f"--config.data.data_dir={data}",
        "--config.data.front_end=paper",
        "--config.data.clip_seconds=10.0",
        "--config.data.validation_fraction=0.0",
        "--config.data.num_events=2",
        "--config.train.batch_size=5",
        "--config.train.epochs=2",
        f"--workdir={tmp_path / 'run'}",
    ]
    said.append(command("run.py", *settings, f"--config.data.manifest={train}"))
    said.append(command("run.py", *settings, f"--config.data.manifest={test}", "--mode=evaluate"))
    assert "warning" not in "".join(said).lower()
    assert "features:" not in said[2]  # prepare_dataset.py made them
    evaluation = tmp_path / "run" / "evaluation"
    with open(evaluation / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["scene"] for row in rows) == sorted(clip.stem for clip in CLIPS.glob("*.wav"))
    assert (evaluation / "results.json").is_file()
