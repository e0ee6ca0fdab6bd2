"""Where the public data sets that soundata reads have what a manifest needs.

`LAYOUTS` has an entry for each that soundata_manifest.py supports, `OTHERS` what the rest have in
place of scenes or events. Licences are those that the data sets state: soundata's own fields differ
for some.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ergl_jax.datasets.tables import Row, read_table
from ergl_jax.errors import InputError
from ergl_jax.files import local_path

SUBSETS = "https://github.com/CPJKU/dcase2024_task1_baseline/releases/tag/files"
LISTS = {"train": "train", "evaluate": "test"}  # of the official fold 1: the split
ANY = "any"  # the scene of data sets that have none
NON_COMMERCIAL = "{} licence: non-commercial use only, also of what is made from it"
CC = "{} (https://creativecommons.org/licenses/{})"


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a manifest takes from each clip of a data set: soundata's Clip, or one of `_tau`.

    Attributes:
      licence: of all clips, or a clip's own.
      columns: from a clip to its value of a manifest's column: scene, split or fold, group, by:...
      events: the probabilities of a clip's events; others have 0.
      clips: reads the clips in place of soundata, from the root and the --subset.
      part: prefix of the parts and folders that a manifest needs; "": it needs all.
    """

    licence: str | Callable[[Any], str]
    columns: Mapping[str, Callable[[Any], Any]]
    events: Callable[[Any], Mapping[str, float]] | None = None
    clips: Callable[[Path, str], list] | None = None
    part: str = ""


def _tag(clip) -> str:
    return clip.tags.labels[0]


def _tags(clip) -> dict[str, float]:
    return dict.fromkeys(clip.tags.labels, 1.0)


def _events(clip) -> dict[str, float]:
    """The highest confidence of each event."""
    found: dict[str, float] = {}
    for name, confidence in zip(clip.events.labels, clip.events.confidence, strict=True):
        found[name] = max(found.get(name, 0.0), float(confidence))
    return found


def _annotators(clip) -> dict[str, float]:
    """The share of annotators who heard an event."""
    heard = [set(each.labels) for each in clip.events.annotations]
    counts = Counter(name for names in heard for name in names)
    return {name: count / len(heard) for name, count in counts.items()}


def _has_bird(clip) -> str:
    return {"0": "no bird", "1": "bird"}[clip.has_bird]


def _split(clip) -> str:
    return {"validate": "validation"}.get(clip.split, clip.split)


def _fold(clip) -> str:
    return clip.split.removeprefix("development.fold")


def _metadata(*keys: str) -> Callable[[Any], str]:
    """A field that soundata reads but has no attribute of."""

    def get(clip):
        value = clip._clip_metadata
        for key in keys:
            value = value[key]
        return value

    return get


def _always(value: str) -> Callable[[Any], str]:
    return lambda _: value


def _tau(folder: str) -> Callable[[Path, str], list]:
    """A reader of the development set of TAU Urban Acoustic Scenes, by its own lists.

    soundata's own reader needs the lists of the evaluation sets too, which have no labels.
    """

    def clips(root: Path, subset: str) -> list:
        home = root if (root / "meta.csv").is_file() else root / folder
        lists = {split: home / "evaluation_setup" / f"fold1_{split}.csv" for split in LISTS}
        lists["train"] = _subset(subset, root, home) if subset else lists["train"]
        remedy = f"name the folder of {folder} with --root, or add --download"
        meta = {row.cells["filename"]: row.cells for row in _read(home / "meta.csv", remedy)}
        found: dict[str, SimpleNamespace] = {}
        for split, path in lists.items():
            for row in _read(path, remedy):
                name = row.cells["filename"]
                if name not in meta:
                    raise InputError(f"{row.where}: {name} is not in {home / 'meta.csv'}")
                if name in found:
                    raise InputError(f"{row.where}: {name} is already in {lists['train']}")
                about = meta[name]
                found[name] = SimpleNamespace(
                    audio_path=str(home / name),
                    scene=about["scene_label"],
                    split=LISTS[split],
                    location=about["identifier"],
                    device=about.get("source_label"),
                )
        devices = {clip.device for clip in found.values() if clip.split == "train"}
        for clip in found.values():
            clip.devices = "seen" if clip.device in devices else "unseen"
        if left_out := len(meta) - len(found):
            names = " nor ".join(path.name for path in lists.values())
            print(f"{left_out} clips of {home / 'meta.csv'} are left out: in neither {names}")
        return list(found.values())

    return clips


def _read(path: Path, remedy: str) -> list[Row]:
    return read_table(path, ("filename",), remedy, note=False)


def _subset(subset: str, root: Path, home: Path) -> Path:
    """The list of a training subset: a path, or the number in its name."""
    if not subset.isdigit():
        return local_path(subset, "--subset")
    places = (root, home, home / "evaluation_setup")
    paths = [place / f"split{subset}.csv" for place in places]
    if found := [path for path in paths if path.is_file()]:
        return found[0]
    raise InputError(f"{paths[0]}: no such file, nor in {home}; get it from {SUBSETS}")


def _tau_layout(year: str, mobile: bool) -> Layout:
    name = f"TAU Urban Acoustic Scenes {year}{' Mobile' * mobile}"
    columns = {name: attrgetter(name) for name in ("scene", "split")}
    columns["group"] = attrgetter("location")
    if mobile:
        columns |= {"by:device": attrgetter("device"), "by:devices": attrgetter("devices")}
    folder = name.replace(" ", "-").lower().replace("tau", "TAU", 1) + "-development"
    return Layout(NON_COMMERCIAL.format(name), columns, clips=_tau(folder), part="development")


BIRDS = Layout(CC.format("CC BY 4.0", "by/4.0"), {"scene": _has_bird})
EIGENSCAPE = Layout(
    CC.format("CC BY 4.0", "by/4.0"), {"scene": _tag, "group": attrgetter("location")}
)
LAYOUTS = {
    "dcase23_task4b": Layout(
        NON_COMMERCIAL.format("MAESTRO Real"), {"scene": _metadata("environment")}, _events
    ),
    "dcase_birdVox20k": BIRDS,
    "eigenscape": EIGENSCAPE,
    "eigenscape_raw": EIGENSCAPE,
    "esc50": Layout(
        CC.format("CC BY-NC 3.0", "by-nc/3.0"),
        {"scene": _tag, "fold": attrgetter("fold"), "group": attrgetter("src_file")},
        _tags,
    ),
    "freefield1010": BIRDS,
    "fsd50k": Layout(
        _metadata("clip_info", "license"),
        {"scene": _always(ANY), "split": _split, "group": _metadata("clip_info", "uploader")},
        _tags,
    ),
    "fsdnoisy18k": Layout(
        "Per clip: CC0 or CC BY (see LICENSE-INDIVIDUAL-CLIPS of FSDnoisy18k)",
        {"scene": _tag, "split": _split},
        _tags,
    ),
    "singapura": Layout(
        CC.format("CC BY-SA 4.0", "by-sa/4.0"),
        {"scene": _always(ANY), "group": attrgetter("sensor_id")},
        _annotators,
    ),
    "tau2019uas": _tau_layout("2019", mobile=False),
    "tau2020uas_mobile": _tau_layout("2020", mobile=True),
    "tau2022uas_mobile": _tau_layout("2022", mobile=True),
    "tut2017se": Layout(
        "TUT Sound Events 2017 licence: see its EULA.pdf",
        {"scene": _always("street"), "fold": _fold},
        _events,
    ),
    "urbansed": Layout(
        CC.format("CC BY 4.0", "by/4.0"), {"scene": _always(ANY), "split": _split}, _events
    ),
    "urbansound8k": Layout(
        CC.format("CC BY-NC 3.0", "by-nc/3.0"),
        {"scene": _tag, "fold": attrgetter("fold"), "group": attrgetter("freesound_id")},
        _tags,
    ),
    "warblrb10k": BIRDS,
}
# soundata's other data sets: what they have in place of scenes or events.
OTHERS = {
    "dcase23_task2": "normal and anomalous machine sounds",
    "dcase23_task6a": "captions",
    "dcase23_task6b": "captions",
    "dcase_bioacoustic": "a few calls of a species in long recordings",
    "marco": "music of one room by different microphones",
    "starss2022": "directions of sounds",
    "tau2019sse": "directions of sounds",
    "tau2020sse_nigens": "directions of sounds",
    "tau2021sse_nigens": "directions of sounds",
}
