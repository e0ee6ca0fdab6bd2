"""TUT Urban Acoustic Scenes 2018, development set: the corpus of the paper (section 3.1)."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ergl_jax.datasets.manifest import Corpus, read_manifest
from ergl_jax.errors import InputError

RECORD = "https://zenodo.org/record/1228142"
DOWNLOAD_BYTES = 21_353_171_682  # the record's 15 archives: 13 of audio, meta, doc
LICENCE = "TUT Urban Acoustic Scenes 2018 licence: non-commercial use only"

MISSING = """\
TUT Urban Acoustic Scenes 2018 is not at {root}: no {manifest}

The paper trains on its development set: ten scenes, clips of 10 s, of the official fold 1
6122 to train and 2518 to test, at different locations. Licence: non-commercial use only.

  1. Get the archives ({gigabytes:.1f} GB): {record}
     and put the recordings in {audio}
  2. Write {manifest}, one row a recording:
       file,scene,split,group
       audio/airport-barcelona-0-0-a.wav,airport,train,airport-barcelona-0
  3. Make the features:
       python data_prep/prepare_dataset.py --manifest={manifest}

Without any download, this runs at once:
  python run.py --config=configs/ergl.py:synthetic"""


def corpus(root: str | os.PathLike) -> Corpus:
    """The corpus that `<root>/manifest.csv` describes, as any manifest.

    Raises:
      InputError: there is none yet; the message, one screen, says what is missing, the download's
        size and how to go on.
    """
    root = Path(root).expanduser()
    manifest = root / "manifest.csv"
    if not manifest.is_file():
        raise InputError(
            MISSING.format(
                root=root,
                manifest=manifest,
                audio=root / "audio",
                record=RECORD,
                gigabytes=DOWNLOAD_BYTES / 1e9,
            )
        )
    return dataclasses.replace(read_manifest(manifest, licence=LICENCE), name="tut2018")
