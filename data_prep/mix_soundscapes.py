"""Mixes isolated recordings into polyphonic clips with known events, for `data.source=folder`.

    python data_prep/mix_soundscapes.py --recordings=ESC-50-master --out=data/soundscapes
    python run.py --config=configs/ergl.py:folder \\
        --config.data.manifest=data/soundscapes/manifest.csv --config.data.num_events=10

`--recordings` is a copy of ESC-50 or of ESC-10, or a folder of your own with a meta.csv of the
columns filename, label, fold and source (and licence, author); `--scenes` describes the scenes. A
clip mixes recordings of one fold, so training and test share no source. In `--out`:

    audio/*.flac         the clips, `<scene>-fold<fold>-<number>`
    manifest.csv         file, scene, split, fold, group (the fold) and the licences in a clip
    manifest.events.npz  which events are in a clip, 1 or 0, or with --labels=share for what share
                         of it they sound, 0 to 1; training reads it by default
    annotations.csv      every sound: clip, onset and offset in seconds, event, level, recording

A clip depends only on the seed, its scene, fold and number. After an interruption the same command
resumes; with a larger --clips_per_scene it adds clips, with other --labels it replaces them alone.
"""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import soundfile
from arguments import names, number

from ergl_jax import locks, progress
from ergl_jax.datasets import esc, scene_files, soundscapes
from ergl_jax.datasets.notes import Notes
from ergl_jax.datasets.tables import write_table
from ergl_jax.errors import InputError, Parser, command
from ergl_jax.files import (
    atomic_write,
    atomic_write_together,
    check_directory,
    local_path,
    make_directory,
    read_json,
)

SETTINGS = "settings.json"  # what the clips in a folder were made with
SHIPPED = Path(__file__).with_name("soundscapes.yaml")
CLIPS = "file scene split fold group licence".split()
ANNOTATIONS = "clip onset offset event level recording source licence author".split()
SPLITS = {"train": "1,2", "validation": "3", "test": "4"}  # their default folds


def _parser() -> Parser:
    parser = Parser(description="Mixes isolated recordings into polyphonic clips.")
    add = parser.add_argument
    add(
        "--recordings",
        type=local_path,
        required=True,
        help="ESC-50, ESC-10 or similar",
    )
    add("--scenes", type=local_path, default=SHIPPED, help=f"scene file; default {SHIPPED.name}")
    add("--out", type=local_path, required=True, help="the folder to write")
    for flag, kind, low, high, default, text in (
        ("clips_per_scene", int, 1, 1_000_000, 100, "of each scene in each fold"),
        ("seconds", float, 0.5, 3600, 10.0, "of a clip"),
        ("sample_rate", int, 8000, 192_000, 32000, "Hz"),
        ("seed", int, 0, 2**63, 0, "another one makes other clips"),
    ):
        text = f"{text}; default {default}"
        add(f"--{flag}", type=number(kind, low, high), default=default, help=text)
    labels = "event labels: presence in the clip (default), or share of the clip"
    add("--labels", choices=("presence", "share"), default="presence", help=labels)
    for split, folds in SPLITS.items():
        text = f"of the recordings for the {split} split; default {folds}"
        add(f"--{split}_folds", type=names, default=names(folds), help=text)
    return parser


def _splits(options) -> dict[str, str]:
    """The split of each fold."""
    splits: dict[str, str] = {}
    for split in SPLITS:
        for fold in getattr(options, f"{split}_folds"):
            if fold in splits:
                raise InputError(f"--{split}_folds: fold {fold} is in {splits[fold]} already")
            splits[fold] = split
    if not splits:
        raise InputError("no fold is given: name some with --train_folds or --test_folds")
    return splits


def _check_settings(out: Path, settings: dict) -> None:
    """Stores the settings, or InputError if the clips in `out` were made with others."""
    path = out / SETTINGS
    before = read_json(path, "choose another --out") if path.exists() else settings
    for name, value in settings.items():
        if not isinstance(before, dict) or before.get(name) != value:
            raise InputError(f"{path}: the clips there have another {name}; choose another --out")
    with atomic_write(path) as tmp:
        tmp.write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _write_tables(
    out: Path, events: list[str], clips: list[tuple], sounds: list[tuple], labels: np.ndarray
) -> None:
    """Writes the manifest, the labels of its events and the annotations, all or none."""
    with atomic_write_together(out) as tmp:
        write_table(tmp / "manifest.csv", CLIPS, clips)
        write_table(tmp / "annotations.csv", ANNOTATIONS, sounds)
        files = [file for file, *_ in clips]
        np.savez(tmp / "manifest.events.npz", clip=files, events=events, probabilities=labels)


def _annotation(clip: str, sound: soundscapes.Sound, sample_rate: int) -> tuple[str, ...]:
    """The cells of ANNOTATIONS."""
    recording = sound.recording
    onset, offset = (f"{sample / sample_rate:.6f}" for sample in (sound.onset, sound.offset))
    origin = recording.name, recording.source, recording.licence, recording.author
    return clip, onset, offset, sound.event, f"{sound.level:.2f}", *origin


@command(resumes=True)
def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    options = _parser().parse_args(argv)
    splits = _splits(options)
    scene_file = scene_files.read_scenes(options.scenes)
    scene_files.check_fits(options.scenes, scene_file, options.seconds)
    recordings = esc.read_meta(options.recordings)
    pools = {fold: soundscapes.by_event(scene_file, recordings, fold) for fold in splits}
    used = {r for pool in pools.values() for available in pool.values() for r in available}
    if missing := sorted(r.path for r in used if not r.path.is_file()):
        raise InputError(f"{missing[0]}: no such file; get it, or remove its row")
    check_directory(options.out, "--out")
    with locks.hold(options.out / "lock.json", f"{options.out}", "choose another --out"):
        return _mix(options, splits, scene_file, pools, used)


def _mix(options, splits, scene_file, pools, used) -> int:
    """Writes the clips and their tables."""
    make_directory(options.out / "audio", "--out")
    settings = {
        "version": soundscapes.VERSION,
        "seed": options.seed,
        "seconds": options.seconds,
        "sample_rate": options.sample_rate,
        "scenes": [repr(scene) for scene in scene_file.scenes],
        "recordings": sorted([r.fold, r.name, r.label, r.path.stat().st_size] for r in used),
    }
    _check_settings(options.out, settings)

    noted: dict[str, list[str]] = {}

    @functools.lru_cache(maxsize=256)
    def load(recording: esc.Recording) -> np.ndarray:
        notes: list[str] = []
        waveform = soundscapes.load_recording(recording, options.sample_rate, notes)
        noted.setdefault(recording.name, notes)
        return waveform

    events = [event for event in scene_file.labels if any(event in pool for pool in pools.values())]
    clips, sounds, labels = [], [], []
    todo = [
        (f, s, n) for f in splits for s in scene_file.scenes for n in range(options.clips_per_scene)
    ]
    for fold, scene, take in progress.bar(todo, desc="clips", unit=" clips"):
        key = (int.from_bytes(text.encode(), "big") for text in (scene.name, fold))
        soundscape = soundscapes.compose(
            scene,
            pools[fold],
            load,
            [options.seed, *key, take],
            seconds=options.seconds,
            sample_rate=options.sample_rate,
        )
        name = f"audio/{scene.name}-fold{fold}-{take:04d}.flac"
        if not (options.out / name).exists():
            with atomic_write(options.out / name) as tmp:
                wave = soundscapes.mix(soundscape)
                soundfile.write(tmp, wave, options.sample_rate, format="FLAC", subtype="PCM_16")
        recorded = soundscape.all_sounds()
        licence = "; ".join(sorted({sound.recording.licence for sound in recorded} - {""}))
        clips.append((name, scene.name, splits[fold], fold, f"fold{fold}", licence))
        sounds += [_annotation(name, sound, options.sample_rate) for sound in recorded]
        shares = soundscapes.shares(soundscape, events)
        labels.append(shares if options.labels == "share" else shares > 0)
    _write_tables(options.out, events, clips, sounds, np.array(labels, np.float32))
    notes = Notes()
    for name, its_notes in sorted(noted.items()):
        notes.add(name, its_notes)
    notes.write(options.out / "notes.csv")
    print(f"{len(clips)} clips, {len(sounds)} sounds in {options.out / 'manifest.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
