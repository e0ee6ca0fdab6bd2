"""TUT Urban Acoustic Scenes 2018, development set: the corpus of the paper (section 3.1).

`prepare` downloads it and writes `<root>/manifest.csv`; `corpus` reads that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ergl_jax.datasets.archives import unpack
from ergl_jax.datasets.manifest import Corpus, read_manifest
from ergl_jax.datasets.tables import write_table
from ergl_jax.downloads import fetch, remaining, require_space, verify
from ergl_jax.errors import InputError, MultilineInputError
from ergl_jax.files import atomic_write, local_path, make_directory, read_text
from ergl_jax.labels import TUT2018_SCENES

RECORD = "https://zenodo.org/record/1228142"
FOLDER = "TUT-urban-acoustic-scenes-2018-development"  # the archives' top folder, left out here
LICENCE = (
    "TUT Urban Acoustic Scenes 2018 licence: non-commercial use only, also of what is distributed "
    f"from it ({RECORD})"
)
MARKS, DOWNLOADS = ".unpacked", "archives"  # under the root: MD5s of unpacked archives; downloads
EXPANSION = 1.2  # unpacked size / archive size: 8640 clips of 10 s, 48 kHz, stereo, 24 bit
CLIP_NAME = r"([a-z_]+)-([a-z]+-\d+)-\d+-[a-z]"  # <scene>-<city>-<location>-<segment>-<device>


@dataclasses.dataclass(frozen=True)
class Archive:
    url: str
    size: int  # bytes
    md5: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]


@dataclasses.dataclass(frozen=True)
class Release:
    """The archives to download, and how many clips the lists of fold 1 name."""

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
TUT Urban Acoustic Scenes 2018 is not at {root}: no {root}/manifest.csv

The paper trains on its development set: ten scenes, clips of 10 s, of the official fold 1
6122 to train and 2518 to test, at different locations. Licence: non-commercial use only.

  1. Get it ({gigabytes:.1f} GB from {record}):
       python data_prep/prepare_dataset.py tut2018 --root={root}
  2. Label its events with a pretrained PANN:
       python data_prep/port_panns.py --download=Cnn14_16k --out=data/Cnn14_16k
       python data_prep/pseudo_label.py --bundle=data/Cnn14_16k \\
         --manifest={root}/manifest.csv \\
         --out={root}/manifest.events.npz

Without any download, this runs at once:
  python run.py --config=configs/ergl.py:synthetic"""


def corpus(root: Path, events_file: str | os.PathLike | None = None) -> Corpus:
    """The corpus that `<root>/manifest.csv` describes.

    Args:
      root: as for `prepare`.
      events_file: event probabilities, as `read_manifest` takes them; default
        `<root>/manifest.events.npz` if that exists.

    Raises:
      InputError: there is no manifest yet; the message is one screen: what is missing, the size of
        the download and the commands to run.
    """
    manifest = root / "manifest.csv"
    if not manifest.is_file():
        missing = MISSING.format(root=root, record=RECORD, gigabytes=DEVELOPMENT.size / 1e9)
        raise MultilineInputError(missing)
    clips = read_manifest(manifest, events_file=events_file, licence=LICENCE)
    return dataclasses.replace(clips, name="tut2018")


def prepare(root: Path, *, archives: Path | None = None, keep_archives: bool = False) -> None:
    """Downloads and unpacks what is missing, and writes `<root>/manifest.csv`.

    It can be interrupted at any time and resumes. An existing manifest is kept.

    Args:
      root: the directory of recordings and lists, with the archives' layout.
      archives: a directory of archives already downloaded, which are not changed; others are
        downloaded.
      keep_archives: keep what is downloaded, in `<root>/archives`, after it is unpacked.

    Raises:
      InputError: a full disk, no network, a damaged archive, or lists that aren't those of fold 1.
    """
    root = make_directory(local_path(root), "root")
    marks = make_directory(root / MARKS, "directory")

    def is_unpacked(archive: Archive) -> bool:
        mark = marks / archive.name
        return mark.is_file() and mark.read_text(encoding="utf-8") == archive.md5

    todo = [archive for archive in DEVELOPMENT.archives if not is_unpacked(archive)]
    given = {path.name: path for path in archives.glob(f"{FOLDER}.*.zip")} if archives else {}
    if todo and archives and not given:
        example = DEVELOPMENT.archives[0].name
        raise InputError(f"{archives} contains none of the archives, such as {example}")
    downloads = [
        remaining(root / DOWNLOADS / archive.name, archive.size)
        for archive in todo
        if archive.name not in given
    ]
    packed = sum(downloads) if keep_archives else max(downloads, default=0)
    require_space(root, packed + EXPANSION * sum(archive.size for archive in todo))

    def get(audio: bool) -> None:
        for archive in todo:
            if (".audio." in archive.name) == audio:
                _get(archive, root, given.get(archive.name), keep_archives)

    get(audio=False)
    clips = _read_fold(root)  # wrong lists are reported before 20 GB of audio
    get(audio=True)
    names = [name for split in clips.values() for name in split]
    if absent := [name for name in names if not (root / name).is_file()]:
        raise InputError(
            f"{root}: {len(absent)} recordings are missing, such as {absent[0]}; delete {marks} to "
            "unpack the archives again"
        )
    if (manifest := root / "manifest.csv").exists():
        return
    rows = [
        (name, scene, split, place)
        for split, places in clips.items()
        for name, (scene, place) in places.items()
    ]
    with atomic_write(manifest) as tmp:
        write_table(tmp, ("file", "scene", "split", "group"), rows)


def _get(archive: Archive, root: Path, given: Path | None, keep: bool) -> None:
    """Unpacks an archive, downloaded if it isn't given, and marks it as unpacked."""
    path = given or root / DOWNLOADS / archive.name
    if given:
        verify(path, md5=archive.md5, size=archive.size)
    else:
        fetch(archive.url, path, md5=archive.md5, size=archive.size)
    unpack(path, root, strip=FOLDER)
    with atomic_write(root / MARKS / archive.name) as tmp:
        tmp.write_text(archive.md5, encoding="utf-8")
    if not given and not keep:
        path.unlink()
        with contextlib.suppress(OSError):  # not empty
            path.parent.rmdir()


def _read_fold(root: Path) -> dict[str, dict[str, tuple[str, str]]]:
    """The official fold 1: split -> file -> (scene, place).

    A place is a city and a location; training and test have different ones.
    """
    lists = root / "evaluation_setup"
    train = _read_list(lists / "fold1_train.txt")
    test = _read_list(lists / "fold1_evaluate.txt")
    unlabelled = _read_list(lists / "fold1_test.txt", labelled=False)
    folds = {"train": train, "test": test}
    if different := sorted(unlabelled.keys() ^ test.keys()):
        reason = f"{different[0]} is only in one of fold1_test.txt and fold1_evaluate.txt"
        raise InputError(f"{lists}: {reason}")
    for split, clips in folds.items():
        if len(clips) != (wanted := DEVELOPMENT.clips[split]):
            reason = f"{len(clips)} {split} clips where fold 1 has {wanted}"
            raise InputError(f"{lists}: {reason}: not the lists of this corpus")
    places = [{place for _, place in clips.values()} for clips in folds.values()]
    if both := sorted(places[0] & places[1]):
        raise InputError(f"{lists}: location {both[0]} is in both train and test")
    return folds


def _read_list(path: Path, *, labelled: bool = True) -> dict[str, tuple[str, str]]:
    """A list's `audio/<CLIP_NAME>.wav[<TAB><scene>]` lines: file -> (scene, place)."""
    text = read_text(path, f"unpack {FOLDER}.meta.zip again")
    clips: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        name, *scene = line.split("\t")
        match = re.fullmatch(CLIP_NAME, PurePosixPath(name).stem)
        valid = match and match[1] in TUT2018_SCENES and scene == [match[1]] * labelled
        if line and (not valid or name in clips):
            raise InputError(f"{path}, line {number}: {line!r} is not a new clip and its scene")
        if match:
            clips[name] = match[1], match[2]
    return clips
