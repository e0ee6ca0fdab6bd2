"""Expands file names, folders and patterns to recordings."""

import fnmatch
import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ergl_jax.errors import InputError, warn
from ergl_jax.files import find_path, local_path

# Of the audio files in folders; a file that is named itself may have any.
SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".mp3", ".m4a", ".aif", ".aiff", ".aifc", ".opus", ".oga", ".aac"),
    *(".wave", ".bwf", ".rf64", ".w64", ".caf", ".au", ".snd", ".mp2", ".mpga", ".m4b", ".mp4"),
    *(".mov", ".webm", ".weba", ".mka", ".mkv", ".wma", ".3gp", ".3g2", ".3gpp", ".amr", ".awb"),
)
Fail = Callable[[InputError], None]


def expand(
    pattern: str | os.PathLike, fail: Fail | None = None, skipped: Counter | None = None
) -> list[str]:
    """The recordings that a file, a folder or a pattern stands for, in order.

    A missing file is returned as it is: reading it reports that. A name that exists is not read as
    a pattern, even with brackets.

    Args:
      pattern: as a user writes it.
      fail: called with an error for each folder that can't be read; by default, raises it.
      skipped: counts a folder's files that are not audio, by extension; by default, warns of them.

    Raises:
      InputError: a folder without audio files, or a pattern without matches.
    """
    path = find_path(local_path(pattern, "a recording's name"))
    failures: list[InputError] = []
    others: Counter[str] = Counter() if skipped is None else skipped
    if os.path.isdir(path):  # unlike Path.is_dir, False where access is denied
        found = sorted(_audio_files(path, failures.append, others))
        some = ", ".join(SUFFIXES[:4])
        reason = f"contains no audio file ({some}, ...): add recordings"
    elif glob.has_magic(str(path)) and not os.path.lexists(path):
        parts = path.parts[bool(path.anchor) :]
        found = sorted(set(_matches(path.anchor, parts, failures.append)))
        reason = "is a pattern that matches no file"
    else:
        return [str(path)]
    for error in failures:
        if not fail:
            raise error
        fail(error)
    if not found and not failures:
        raise InputError(f"{path} {reason}")
    if skipped is None:
        warn_of_skipped(path, others)
    return found


def warn_of_skipped(folder: Path, skipped: Counter) -> None:
    """Warns of the files of a folder that are not audio, counted by extension, if there are any."""
    if count := skipped.total():
        ordered = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
        kinds = ", ".join(f"{kind} {number}" for kind, number in ordered)
        files = "1 file that is" if count == 1 else f"{count} files that are"
        warn(f"{folder}: skipped {files} not audio: {kinds}")


def _audio_files(folder: Path, fail: Fail, skipped: Counter) -> Iterator[str]:
    for parent, files in _walk(str(folder), fail):
        for name in files:
            if name.startswith("."):
                continue
            if name.lower().endswith(SUFFIXES):
                yield os.path.join(parent, name)
            else:
                skipped[os.path.splitext(name)[1].lower() or "no extension"] += 1


def _walk(folder: str, fail: Fail) -> Iterator[tuple[str, list[str]]]:
    """Each folder from `folder` down that isn't hidden, once, and the names of its files.

    Links to folders are followed at the end, so that a folder has its own name where it can.
    """
    starts, seen = [folder], set()
    for start in starts:
        for parent, folders, files in os.walk(start, onerror=lambda error: fail(_denied(error))):
            if (real := os.path.realpath(parent)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            paths = [os.path.join(parent, name) for name in folders]
            starts += [path for path in paths if os.path.islink(path)]
            yield parent, files


def _matches(folder: str, parts: Sequence[str], fail: Fail) -> Iterator[str]:
    """The files below a folder whose paths match `parts`; "**" is any number of folders."""
    if not parts:
        if not os.path.isdir(folder):
            yield folder
        return
    first, *rest = parts
    if first == "**":
        for parent, _ in _walk(folder or ".", fail):
            parent = parent if folder else os.path.relpath(parent)
            yield from _matches("" if parent == "." else parent, rest or ["*"], fail)
    elif os.path.lexists(path := str(find_path(Path(folder, first)))):
        yield from _matches(path, rest, fail)
    elif glob.has_magic(first) and os.path.isdir(folder or "."):
        pattern = unicodedata.normalize("NFC", first)
        try:
            names = os.listdir(folder or ".")
        except OSError as error:
            return fail(_denied(error))
        for name in names:
            hidden = name.startswith(".") and not first.startswith(".")
            if not hidden and fnmatch.fnmatch(unicodedata.normalize("NFC", name), pattern):
                yield from _matches(os.path.join(folder, name), rest, fail)


def _denied(error: OSError) -> InputError:
    return InputError(f"{error.filename} can't be read: {error.strerror}")
