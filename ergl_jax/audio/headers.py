"""Finds the recordings in a file by its headers, and identifies files that are not audio.

Headers are wrong if a recorder was not stopped, and files may be concatenated, so lengths in
headers are compared with the file.
"""

import io
import os
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

UNKNOWN_SIZE = 0x7FFF0000  # programs that write into a pipe put the maximum into the header
UNFINISHED = "unfinished header: read to the end of the file"
ENDLESS = "no end marker: cut off, or the recording was not stopped"
# Bytes by which programs write too large a size: the pad byte, the chunk's own header, the file's.
MISCOUNTED = (1, 8, 36, 44)
CHUNK_NAME = re.compile(rb"\w[\w ]{3}")
KNOWN_CHUNKS = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"JUNK", b"PEAK", b"_PMX")
MAX_UNREAD = 1 << 16  # bytes of headers and tags
MIN_ZEROS = 64  # some formats begin with a few
CAPTURE = b"OggS"  # begins every page of an OGG
FIRST, LAST = 2, 4  # flags of a page: of its stream


class Part(NamedTuple):
    """Bytes of a file that are a recording of their own."""

    start: int
    stop: int
    is_finished: bool = True  # whether its header says how far it goes
    streams: int = 1


class Section(io.RawIOBase):
    """Bytes `start` to `stop` of an opened file as a file; closing it leaves that one open."""

    def __init__(self, file: BinaryIO, start: int, stop: int, name: str):
        self._file, self._start, self.size, self._at = file, start, stop - start, 0
        self.name = name
        self.is_whole = start == 0 and stop == file.seek(0, os.SEEK_END)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self.size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer) -> int:
        if self._at >= self.size:
            return 0
        self._file.seek(self._start + self._at)
        data = self._file.read(min(len(buffer), self.size - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def parts(file: BinaryIO, size: int, notes: list[str]) -> list[Part]:
    """The recordings in a file, mostly one; adds to `notes` what is unusual.

    Raises ValueError for a WAV or CAF that is shorter than its header says.
    """
    file.seek(0)
    head = file.read(12)
    if head[:4] == CAPTURE:
        return _ogg(file, size, notes)
    if head[:4] in _ORDERS and head[8:] == b"WAVE":
        return _wav(file, size, notes)
    starts, end = [0], _end(file, 0, size, notes)
    while (after := _end(file, end, size, notes)) > end:  # another one begins there
        starts.append(end)
        end = after
    if starts[1:]:
        return [Part(*each) for each in zip(starts, [*starts[1:], size], strict=True)]
    if head[4:8] == b"ftyp" and size - end - _zeros(file, end, size) > MAX_UNREAD:
        notes.append(unread(size - end))
    zeros = _zeros(file, 0, size)  # that a recorder had reserved, before an MP3
    return [Part(zeros if MIN_ZEROS < zeros < size else 0, size)]


_ORDERS = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}  # of bytes


def unread(size: int) -> str:
    """The note on `size` bytes that are in no recording."""
    return f"{size} bytes beyond the length in the header are not used"


def truncated(actual: int, size: int) -> str:
    """The message for a file with fewer bytes of samples than its header says."""
    return (
        f"truncated: {actual} of the {size} bytes in its header; get it again, or re-save the "
        "readable part"
    )


def _wav(file: BinaryIO, size: int, notes: list[str]) -> list[Part]:
    found: list[Part] = []
    start = 0
    while start < size:
        data = _data_chunk(file, start, size)
        if data is None:  # libsndfile says what is wrong
            return [*found, Part(start, size)]
        begin, length = data
        missing = begin + length - size
        if missing > 0:
            miscounted = missing in (*MISCOUNTED, begin - start, begin - start - 8)
            if not miscounted and length < UNKNOWN_SIZE:
                raise ValueError(truncated(size - begin, length))
            return [*found, Part(start, size)]
        after = _after(file, begin + length, size)
        if after is None and length and begin + length + _zeros(file, begin + length, size) == size:
            after = size  # as reserved by a recorder
        if after is None:
            notes.append(UNFINISHED)
            return [*found, Part(start, size, is_finished=False)]
        found.append(Part(start, after))
        start = after
    return found


def _end(file: BinaryIO, start: int, size: int, notes: list[str]) -> int:
    """Where an AIFF, AU, AVI, CAF or MP4 at `start` ends; `start` if there is none.

    Raises ValueError for a CAF that is cut off; of an AVI that is a note.
    """
    file.seek(start)
    head = file.read(12)
    if head[:4] == b"FORM" and head[8:11] == b"AIF":
        length = int.from_bytes(head[4:8], "big")
        return start + 8 + length + length % 2
    if head[:4] == b".snd" and len(head) == 12:
        return start + sum(struct.unpack(">2I", head[4:]))
    if head[:4] == b"RIFF" and head[8:] == b"AVI ":
        length = int.from_bytes(head[4:8], "little")
        if size - start < length < UNKNOWN_SIZE:
            notes.append(f"cut off: {size - start} of the {length} bytes in its header")
        return start + 8 + length + length % 2
    if head[:4] == b"caff":
        return _end_of_caf(file, start + 8, size)
    return _end_of_mp4(file, start, size) if head[4:8] == b"ftyp" else start


def _end_of_caf(file: BinaryIO, start: int, size: int) -> int:
    while start + 12 <= size:
        file.seek(start)
        name, length = struct.unpack(">4sq", file.read(12))
        if name == b"caff" or not CHUNK_NAME.fullmatch(name):
            return start
        start += 12
        if name == b"data" and start + length - size > max(MISCOUNTED):
            raise ValueError(truncated(size - start, length))
        start = size if length < 0 else start + length  # -1: to the end of the file
    return min(start, size)


def _end_of_mp4(file: BinaryIO, begin: int, size: int) -> int:
    start = begin
    while start + 8 <= size:
        file.seek(start)
        head = file.read(16)
        length, name = struct.unpack(">I4s", head[:8])
        if start > begin and name == b"ftyp" or not CHUNK_NAME.fullmatch(name):
            return start
        if length == 1:  # the length in 64 bits follows
            length = int.from_bytes(head[8:], "big")
        if length < 8:  # 0: to the end of the file
            return size
        start += length
    return min(start, size)


def _chunks(file: BinaryIO, start: int, stop: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yields each RIFF chunk that has a plausible name: name, start of its content, length."""
    while start + 8 <= stop:
        file.seek(start)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        if not CHUNK_NAME.fullmatch(name):
            return
        yield name, start + 8, length
        start += 8 + length + length % 2


def _data_chunk(file: BinaryIO, start: int, size: int) -> tuple[int, int] | None:
    """Where the samples of a WAV at `start` begin, and how many bytes its header says."""
    file.seek(start)
    order = _ORDERS[file.read(4)]
    long = None  # the length in 64 bits
    for name, begin, length in _chunks(file, start + 12, size, order):
        if name == b"ds64":
            file.seek(begin + 8)
            (long,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if name == b"data":
            return begin, length if long is None or length < 0xFFFFFFFF else long
    return None


def _after(file: BinaryIO, start: int, size: int) -> int | None:
    """Where the chunks from `start` on end, at another WAV or the end; None if they aren't any."""
    for begin in (start + start % 2, start):  # some programs forget the pad byte
        end = begin
        for name, content, length in _chunks(file, begin, size, "<"):
            if name in _ORDERS:
                return content - 8
            end = content + length
            if name in KNOWN_CHUNKS and end > size:
                return size
        if -2 < size - end < 8:
            return size
    return None


def _zeros(file: BinaryIO, start: int, stop: int) -> int:
    """How many bytes from `start` on are zero."""
    file.seek(start)
    count = 0
    while data := file.read(min(1 << 20, stop - start - count)):
        count += len(data) - len(data.lstrip(b"\0"))
        if data[-1:] != b"\0" or data.strip(b"\0"):
            break
    return count


def _ogg(file: BinaryIO, size: int, notes: list[str]) -> list[Part]:
    """One part for each link of a chain, which begins with the first pages of its streams."""
    starts: list[int] = []
    streams: list[int] = []
    was_first, has_end, is_endless, stop = False, True, False, 0
    for start, end, flags in _pages(file, size):
        is_first = bool(flags & FIRST)
        if not starts or is_first and not was_first:
            is_endless |= not has_end
            starts.append(start)
            streams.append(0)
            has_end = False
        streams[-1] += is_first
        has_end |= bool(flags & LAST)
        was_first, stop = is_first, end
    if is_endless or not has_end or stop > size:
        notes.append(ENDLESS)
    stops = [*starts[1:], size]
    return [Part(x, y, streams=z) for x, y, z in zip(starts, stops, streams, strict=True)]


def _pages(file: BinaryIO, size: int) -> Iterator[tuple[int, int, int]]:
    """Yields each page: its start, its end and its flags."""
    start = 0
    while start < size:
        file.seek(start)
        head = file.read(27 + 255)  # a page's longest header
        if head[:4] != CAPTURE or len(head) < 27:
            start = _find(file, CAPTURE, start + 1, size)
            continue
        end = start + 27 + head[26] + sum(head[27 : 27 + head[26]])
        yield start, end, head[5]
        start = end


def _find(file: BinaryIO, wanted: bytes, start: int, size: int) -> int:
    """Where `wanted` is next; `size` if nowhere."""
    step = 1 << 16
    while start < size:
        file.seek(start)
        data = file.read(step)
        if (at := data.find(wanted)) >= 0:
            return start + at
        start += max(1, len(data) - len(wanted) + 1)
    return size


# The first bytes of files that are not audio.
_STRANGE = (
    (b"PK\3\4", "a ZIP archive: unpack it"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive: unpack it"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"MThd", "a MIDI file, which contains no audio"),
    (b"\0\5\x16\7", "macOS's information about another file, not the recording itself"),
)


def not_audio(file: BinaryIO, size: int) -> str:
    """What a file is that can't be decoded, and the remedy; "" if that is unknown."""
    file.seek(0)
    head = file.read(1024)
    for magic, what in _STRANGE:
        if head.startswith(magic):
            return what
    if _zeros(file, 0, size) == size:
        return "only zeros: the download or copy is incomplete; get it again"
    try:
        text = head.decode("utf-8-sig", "strict" if len(head) < 1024 else "ignore").lstrip()
    except UnicodeDecodeError:
        return ""
    if not all(letter.isprintable() or letter.isspace() for letter in text):
        return ""
    if text.startswith("version https://git-lfs"):
        return "a Git LFS pointer, not the recording itself: run `git lfs pull`"
    if text.startswith("#EXTM3U") or text.startswith("[playlist]"):
        return "a playlist: name the recordings in it"
    if text.startswith("<"):
        return (
            "a web page or XML, not the recording itself: download it again, logged in if need be"
        )
    return f"text (it begins {text[:30]!r}): get the recording itself"
