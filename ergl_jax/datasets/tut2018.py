"""TUT Urban Acoustic Scenes 2018, development set: the corpus of the paper (section 3.1).

`prepare` gets the archives and writes `<root>/manifest.csv`; `corpus` reads that.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ergl_jax.datasets.archives import unpack
from ergl_jax.datasets.manifest import Corpus, read_manifest
from ergl_jax.downloads import fetch, remaining, require_space, verify
from ergl_jax.errors import InputError, InputErrorOnAScreen
from ergl_jax.files import atomic_write, local_path, make_directory, user_path
from ergl_jax.labels import TUT2018_SCENES

RECORD = "https://zenodo.org/record/1228142"
FOLDER = "TUT-urban-acoustic-scenes-2018-development"  # the archives' top folder, left out here
LICENCE = (
    "TUT Urban Acoustic Scenes 2018 licence: non-commercial use only, also of what is distributed "
    f"from it ({RECORD})"
)
MARKS, DOWNLOADS = ".unpacked", "archives"  # under the root: what is done, what was downloaded
EXPANSION = 1.2  # unpacked bytes to an archive's: 8640 clips of 10 s, 48 kHz, stereo, 24 bit


@dataclasses.dataclass(frozen=True)
class Archive:
    url: str
    size: int  # bytes
    md5: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]

    @property
    def is_audio(self) -> bool:
        return ".audio." in self.name


@dataclasses.dataclass(frozen=True)
class Release:
    """What there is to download, and how many clips the lists of fold 1 must then name."""

    archives: tuple[Archive, ...]
    clips: Mapping[str, int]  # "train", "test"

    @property
    def size(self) -> int:
        """Bytes of all archives."""
        return sum(archive.size for archive in self.archives)


# Sizes and checksums as published with the record.
DEVELOPMENT = Release(
    archives=tuple(
        Archive(f"{RECORD}/files/{FOLDER}.{part}.zip", size, md5)
        for part, size, md5 in (
            ("doc", 10_517, "28a4a9c46a6f46709ecc8eece365a3a4"),
            ("meta", 69_272, "e196065ee83c07af03a11a310364377d"),
            ("audio.1", 1_657_811_579, "62f97087c447e29def8716204469bf89"),
            ("audio.2", 1_783_489_370, "8e569a92025d82bff6b02b956d7c6dc9"),
            ("audio.3", 1_809_675_304, "00d2020582a4535af5e65322fb2bad56"),
            ("audio.4", 1_756_582_525, "d691eb4271f83ba6ba9a28797accc497"),
            ("audio.5", 1_724_002_546, "c4d64b5483b60f85e9fe080b3435a6be"),
            ("audio.6", 1_645_753_049, "2f0feee78f216697eb19497714d97642"),
            ("audio.7", 1_671_903_917, "07cfefe80a0731de6819181841239f3a"),
            ("audio.8", 1_673_304_843, "213f3c012859c2e9dcb74aacc8558458"),
            ("audio.9", 1_674_839_259, "b724442b09abcb3bd095ebff497cef85"),
            ("audio.10", 1_662_932_947, "a27a32fa52e283ed8013375b8a16f269"),
            ("audio.11", 1_751_473_843, "7073a121e825ffef99832507f30d6644"),
            ("audio.12", 1_742_332_198, "6567aa61db12776568b6267ce122fb18"),
            ("audio.13", 798_990_513, "d00eeb2db0e093d8975521323a96c519"),
        )
    ),
    clips={"train": 6122, "test": 2518},
)

MISSING = """\
TUT Urban Acoustic Scenes 2018 is not at {root}: no {manifest}

The paper trains on its development set: ten scenes, clips of 10 s, of the official fold 1
6122 to train and 2518 to test, at different locations. Licence: non-commercial use only.

  1. Get it ({gigabytes:.1f} GB from {record}):
       python data_prep/prepare_dataset.py tut2018 --root={root}
  2. Label its events with a pretrained PANN:
       python data_prep/port_panns.py --download=Cnn14_16k --out=data/Cnn14_16k
       python data_prep/pseudo_label.py --bundle=data/Cnn14_16k \\
         --manifest={manifest} \\
         --out={events}

Without any download, this runs at once:
  python run.py --config=configs/ergl.py:synthetic"""


def corpus(root: str | os.PathLike, events_file: str | os.PathLike | None = None) -> Corpus:
    """The corpus that `<root>/manifest.csv` describes, as any manifest.

    Args:
      root: where `prepare` put it.
      events_file: event probabilities, as `read_manifest` takes them; default
        `<root>/manifest.events.npz` if that exists.

    Raises:
      InputError: there is none yet; the message, one screen, says what is missing, the download's
        size and how to go on.
    """
    root = user_path(root)
    manifest = root / "manifest.csv"
    if not manifest.is_file():
        raise InputErrorOnAScreen(
            MISSING.format(
                root=root,
                manifest=manifest,
                events=root / "manifest.events.npz",
                record=RECORD,
                gigabytes=DEVELOPMENT.size / 1e9,
            )
        )
    clips = read_manifest(manifest, events_file=events_file, licence=LICENCE)
    return dataclasses.replace(clips, name="tut2018")


def prepare(
    root: str | os.PathLike,
    *,
    release: Release,
    archives: str | os.PathLike | None = None,
    keep_archives: bool = False,
) -> None:
    """Downloads and unpacks what isn't yet, and writes `<root>/manifest.csv`.

    It may be stopped at any time and goes on where it was. A manifest that is there already stays.

    Args:
      root: where recordings and lists will be, as the archives hold them.
      release: `DEVELOPMENT`.
      archives: a directory of archives already downloaded, which are left as they are; those it
        lacks are downloaded.
      keep_archives: keep what is downloaded, in `<root>/archives`, after it is unpacked.

    Raises:
      InputError: no space, no network, a damaged archive, or lists that aren't those of fold 1.
    """
    root = make_directory(local_path(root), "root")
    marks = make_directory(root / MARKS, "directory")
    todo = [archive for archive in release.archives if not _is_marked(marks, archive)]
    given = _find(release, local_path(archives)) if todo and archives else {}
    _check_space(root, todo, given, keep_archives)

    def get(*, audio: bool) -> None:
        for archive in todo:
            if archive.is_audio == audio:
                _get(archive, root, given.get(archive.name), keep_archives)

    get(audio=False)
    clips = _read_fold(root, release)  # what is wrong with them shows before 20 GB of audio
    get(audio=True)
    _check_recordings(root, clips)
    if (manifest := root / "manifest.csv").exists():
        return
    with atomic_write(manifest) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "scene", "split", "group"])
        for split, places in clips.items():
            for name, (scene, place) in places.items():
                writer.writerow([name, scene, split, place])


def _find(release: Release, directory: Path) -> dict[str, Path]:
    """Those of the release's archives that lie in a directory; InputError if none does."""
    found = {archive.name: directory / archive.name for archive in release.archives}
    found = {name: path for name, path in found.items() if path.is_file()}
    if not found:
        first = release.archives[0].name
        raise InputError(f"{directory} holds none of the archives, such as {first}")
    return found


def _check_space(root: Path, todo: list[Archive], given: Mapping[str, Path], keep: bool) -> None:
    """InputError unless all that is still to download and unpack fits on the disk."""
    missing = [
        remaining(root / DOWNLOADS / archive.name, archive.size)
        for archive in todo
        if archive.name not in given
    ]
    packed = sum(missing) if keep else max(missing, default=0)
    require_space(root, packed + EXPANSION * sum(archive.size for archive in todo))


def _get(archive: Archive, root: Path, given: Path | None, keep: bool) -> None:
    """Unpacks an archive in `root`, downloaded if it isn't given, and marks it there as done."""
    if given:
        verify(given, md5=archive.md5, size=archive.size)
        path = given
    else:
        path = root / DOWNLOADS / archive.name
        fetch(archive.url, path, md5=archive.md5, size=archive.size)
    unpack(path, root, strip=FOLDER)
    with atomic_write(root / MARKS / archive.name) as beside:
        beside.write_text(archive.md5, encoding="utf-8")
    if not given and not keep:
        path.unlink()
        with contextlib.suppress(OSError):  # not empty
            path.parent.rmdir()


def _is_marked(marks: Path, archive: Archive) -> bool:
    mark = marks / archive.name
    return mark.is_file() and mark.read_text(encoding="utf-8") == archive.md5


def _read_fold(root: Path, release: Release) -> dict[str, dict[str, tuple[str, str]]]:
    """The official fold 1: split -> file -> (scene, place).

    A place is city and location: what the corpus keeps apart between training and test. Each has
    one scene; if one had two, its clips would still belong on one side.
    """
    lists = root / "evaluation_setup"
    fold = {
        "train": _read_list(lists / "fold1_train.txt"),
        "test": _read_list(lists / "fold1_evaluate.txt"),
    }
    unlabelled = _read_list(lists / "fold1_test.txt", labelled=False)
    if different := sorted(unlabelled.keys() ^ fold["test"].keys()):
        raise InputError(
            f"{lists}: {different[0]} is in one of fold1_test.txt and fold1_evaluate.txt alone"
        )
    for split, clips in fold.items():
        if len(clips) != release.clips[split]:
            raise InputError(
                f"{lists}: {len(clips)} {split} clips where fold 1 has {release.clips[split]}: "
                "not the lists of this corpus"
            )
    places = {split: {place for _, place in clips.values()} for split, clips in fold.items()}
    if both := sorted(places["train"] & places["test"]):
        raise InputError(f"{lists}: location {both[0]} is in both train and test")
    return fold


def _check_recordings(root: Path, fold: Mapping[str, Mapping]) -> None:
    """InputError unless every clip of the lists is there."""
    absent = [name for clips in fold.values() for name in clips if not (root / name).is_file()]
    if absent:
        raise InputError(
            f"{root}: {len(absent)} recordings are missing, such as {absent[0]}; delete "
            f"{root / MARKS} to unpack the archives again"
        )


def _read_list(path: Path, *, labelled: bool = True) -> dict[str, tuple[str, str]]:
    """A list's `audio/<scene>-<city>-<location>-<segment>-<device>.wav[<TAB><scene>]` lines."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(
            f"{path} can't be read ({reason}): the archive {FOLDER}.meta.zip holds it"
        ) from error
    clips = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *scene = line.strip().split("\t")
        match = re.fullmatch(r"([a-z_]+)-([a-z]+-\d+)-\d+-[a-z]", PurePosixPath(name).stem)
        if (
            not match
            or match[1] not in TUT2018_SCENES
            or scene != [match[1]] * labelled
            or name in clips
        ):
            raise InputError(
                f"{path}, line {number}: {line.strip()!r} is not a clip of its own and its scene"
            )
        clips[name] = (match[1], match[2])
    return clips
