"""Mixes isolated recordings into polyphonic clips whose events are known, for `data.source=folder`.

    python data_prep/mix_soundscapes.py --recordings=ESC-50-master --out=data/soundscapes
    python run.py --config=configs/ergl.py:folder \\
        --config.data.manifest=data/soundscapes/manifest.csv --config.data.num_events=10

`--recordings` is a copy of ESC-50 or of ESC-10, or a folder of your own with a meta.csv of the
columns filename, label, fold and source (and licence, author); `--scenes` says what to make of
them. A clip holds recordings of one fold alone, so training and test share no source. In `--out`:

    audio/*.flac         the clips, `<scene>-fold<fold>-<number>`
    manifest.csv         file, scene, split, fold, group (the fold) and the licences in a clip
    manifest.events.npz  which events are in a clip, 1 or 0, which training finds by itself
    annotations.csv      every sound: clip, onset and offset in seconds, event, level, recording

A clip depends on the seed, its scene, fold and number alone. Stopped, the same command goes on;
with a larger --clips_per_scene it adds clips.
"""

import csv
import functools
import json
import sys
from pathlib import Path

import numpy as np
import soundfile
import tqdm

from ergl_jax.datasets import scene_files, soundscapes
from ergl_jax.errors import InputError, Parser, command
from ergl_jax.files import (
    atomic_write,
    atomic_write_together,
    check_directory,
    local_path,
    make_directory,
)

SETTINGS = "settings.json"  # what the clips in a folder were made with
ANNOTATIONS = (
    ("clip", "onset", "offset", "event", "level")
    + ("recording", "source", "licence", "author")
)  # fmt: skip


def _parser() -> Parser:
    parser = Parser(description="Mixes isolated recordings into polyphonic clips.")
    add = parser.add_argument
    add("--recordings", type=local_path, required=True, help="a copy of ESC-50 or ESC-10, or alike")
    add(
        "--scenes",
        type=local_path,
        default=Path(__file__).with_name("soundscapes.yaml"),
        help="the scene file; by default the one beside this script",
    )
    add("--out", type=local_path, required=True, help="the folder to write")
    add("--clips_per_scene", type=int, default=100, help="of each scene in each fold; default 100")
    add("--seconds", type=float, default=10.0, help="of a clip; default 10")
    add("--sample_rate", type=int, default=32000, help="Hz; default 32000")
    add("--seed", type=int, default=0, help="another one makes other clips")
    for split, default in (("train", "1,2"), ("validation", "3"), ("test", "4")):
        add(
            f"--{split}_folds",
            type=_folds,
            default=_folds(default),
            help=f"of the recordings for the {split} split; default {default}",
        )
    return parser


def _folds(text: str) -> list[str]:
    return [fold.strip() for fold in text.split(",") if fold.strip()]


def _check(options) -> dict[str, str]:
    """Each fold's split, in order; InputError for a flag that can't be."""
    for name, least, most in (
        ("clips_per_scene", 1, 1_000_000),
        ("seconds", 0.5, 3600),
        ("sample_rate", 8000, 192_000),
        ("seed", 0, 2**63),
    ):
        if not least <= getattr(options, name) <= most:
            value = getattr(options, name)
            raise InputError(f"--{name} is {value}: use {least:g} to {most:g}")
    splits = {}
    for split in ("train", "validation", "test"):
        for fold in getattr(options, f"{split}_folds"):
            if fold in splits:
                raise InputError(f"--{split}_folds: fold {fold} is in {splits[fold]} already")
            splits[fold] = split
    if not splits:
        raise InputError("no fold is given: name some with --train_folds or --test_folds")
    return splits


def _check_settings(out: Path, settings: dict) -> None:
    """Notes what the clips are made with; InputError where those there were made otherwise."""
    path = out / SETTINGS
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else settings
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read: choose another --out") from error
    for name, value in settings.items():
        if not isinstance(before, dict) or before.get(name) != value:
            raise InputError(
                f"{path}: {name} differs from that of the clips there; choose another --out"
            )
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _write_clip(path: Path, soundscape: soundscapes.Soundscape, sample_rate: int) -> None:
    with atomic_write(path) as beside:
        wave = soundscapes.mix(soundscape)
        soundfile.write(beside, wave, sample_rate, format="FLAC", subtype="PCM_16")


def _write_tables(out: Path, events: list[str], clips: list[dict], sounds: list[dict]) -> None:
    """The manifest, its events and the annotations, all or none."""
    present = np.zeros((len(clips), len(events)), np.float32)
    row = {clip["file"]: i for i, clip in enumerate(clips)}
    for sound in sounds:
        present[row[sound["clip"]], events.index(sound["event"])] = 1
    with atomic_write_together(out) as beside:
        for name, columns, rows in (
            ("manifest.csv", clips[0].keys(), clips),
            ("annotations.csv", ANNOTATIONS, sounds),
        ):
            with open(beside / name, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(rows)
        np.savez(
            beside / "manifest.events.npz",
            clip=[clip["file"] for clip in clips],
            events=events,
            probabilities=present,
        )


@command(resumes=True)
def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    options = _parser().parse_args(argv)
    splits = _check(options)
    scene_file = scene_files.read_scenes(options.scenes)
    scene_files.check_fits(options.scenes, scene_file, options.seconds)
    recordings = soundscapes.read_recordings(options.recordings)
    pools = {fold: soundscapes.by_event(scene_file, recordings, fold) for fold in splits}
    check_directory(options.out, "--out")
    make_directory(options.out / "audio", "--out")
    used = {r for pool in pools.values() for held in pool.values() for r in held}
    settings = {
        "version": soundscapes.VERSION,
        "seed": options.seed,
        "seconds": options.seconds,
        "sample_rate": options.sample_rate,
        "scenes": [repr(scene) for scene in scene_file.scenes],
        "recordings": sorted([r.fold, r.name, r.label, r.path.stat().st_size] for r in used),
    }
    _check_settings(options.out, settings)

    clips, sounds = [], []
    total = len(splits) * len(scene_file.scenes) * options.clips_per_scene
    with tqdm.tqdm(total=total, unit=" clips", disable=None) as bar:
        for fold, split in splits.items():
            load = functools.lru_cache(maxsize=256)(
                functools.partial(soundscapes.load_recording, sample_rate=options.sample_rate)
            )
            for scene in scene_file.scenes:
                for number in range(options.clips_per_scene):
                    words = (int.from_bytes(word.encode(), "big") for word in (scene.name, fold))
                    soundscape = soundscapes.compose(
                        scene,
                        pools[fold],
                        load,
                        [options.seed, *words, number],
                        seconds=options.seconds,
                        sample_rate=options.sample_rate,
                    )
                    name = f"audio/{scene.name}-fold{fold}-{number:04d}.flac"
                    if not (options.out / name).exists():
                        _write_clip(options.out / name, soundscape, options.sample_rate)
                    held = soundscape.all_sounds()
                    licences = sorted({sound.recording.licence for sound in held} - {""})
                    clips.append(
                        {
                            "file": name,
                            "scene": scene.name,
                            "split": split,
                            "fold": fold,
                            "group": f"fold{fold}",
                            "licence": "; ".join(licences),
                        }
                    )
                    sounds += [_annotation(name, sound, options.sample_rate) for sound in held]
                    bar.update()
    events = [event for event in scene_file.labels if any(event in pool for pool in pools.values())]
    _write_tables(options.out, events, clips, sounds)
    print(f"{len(clips)} clips, {len(sounds)} sounds in {options.out / 'manifest.csv'}")
    return 0


def _annotation(clip: str, sound: soundscapes.Sound, sample_rate: int) -> dict:
    recording = sound.recording
    onset, offset = (f"{at / sample_rate:.6f}" for at in (sound.onset, sound.offset))
    about = recording.name, recording.source, recording.licence, recording.author
    cells = clip, onset, offset, sound.event, f"{sound.level:.2f}", *about
    return dict(zip(ANNOTATIONS, cells, strict=True))


if __name__ == "__main__":
    sys.exit(main())
