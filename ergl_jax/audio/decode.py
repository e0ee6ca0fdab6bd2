"""Audio file to mono waveform."""

import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from ergl_jax.audio import ffmpeg, headers
from ergl_jax.audio.ffmpeg import Blocks
from ergl_jax.audio.levels import Levels
from ergl_jax.files import is_remote, reading

BLOCK = 1 << 18  # samples that are decoded at a time
MAX_BLOCKS = 32  # of resampled samples, at a time
# The first bytes of what libsndfile reads; not those of MP3, whose length it takes from the header.
LIBSNDFILE = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"fLaC", b"OggS", b".snd", b"caff")
# Bytes of a sample, of formats that don't compress
WIDTHS = {"PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4}
WIDTHS |= {"FLOAT": 4, "DOUBLE": 8}
MAX_SECONDS = 1e6  # more is no length that libsndfile has found
# libsndfile's log of a file that is shorter than its header says: "SSND : 800 (should be 436)"
TRUNCATED = re.compile(r"^\s*(?:SSND|Data Size|Riff size|riff)\s*: (\d+) \(should be (\d+)\)", re.M)


def read_audio(
    path: str | os.PathLike,
    sample_rate: int,
    channel: str = "mean",
    notes: list[str] | None = None,
) -> np.ndarray:
    """Decodes a whole recording to (L,) float32; see `stream_audio`."""
    return np.concatenate(list(stream_audio(path, sample_rate, channel, notes)))


def stream_audio(
    path: str | os.PathLike,
    sample_rate: int,
    channel: str = "mean",
    notes: list[str] | None = None,
) -> Iterator[np.ndarray]:
    """Decodes a recording of any format that libsndfile or FFmpeg reads, in blocks.

    Mixed to mono, resampled (soxr, HQ) to `sample_rate`. Memory does not grow with the length.

    Args:
      path: the file; a remote one must be an `epath.Path`.
      sample_rate: Hz of the result.
      channel: how several channels become one: see `levels.mono`.
      notes: receives, after the last block, a sentence about each thing that is unusual, such as
        what of the recording could not be decoded.

    Returns:
      Consecutive blocks (l,) float32, l >= 1, integer formats scaled to full scale 1.

    Raises:
      InputError: missing, not a file, not audio, empty, a WAV, FLAC, AIFF, AU, CAF or W64 that
        was cut off, NaN, infinite or louder than MAX_PEAK.
    """
    notes = [] if notes is None else notes
    with reading(path):
        if os.path.exists(path) and not os.path.isdir(path) and not os.path.isfile(path):
            # Opening a pipe would wait for another program to write to it.
            raise ValueError("a device or a pipe, not a file: copy it to one")
        # Opened here since libsndfile calls a missing file and a directory "System error". Without
        # a buffer, since libsndfile moves the descriptor.
        opened: Any = path.open("rb") if is_remote(path) else open(path, "rb", buffering=0)  # type: ignore[union-attr]
        with opened as file:
            blocks = _decode(file, os.path.splitext(os.fspath(path))[1], notes)
            yield from mix(blocks, sample_rate, channel, path, notes)


_END = np.zeros((0, 1), np.float32), 0.0


def mix(
    blocks: Iterable[tuple[np.ndarray, float]],
    sample_rate: int,
    channel: str,
    name: str | os.PathLike,
    notes: list[str],
) -> Iterator[np.ndarray]:
    """Samples (l, channels) of any rates as blocks (l,) of one; see `stream_audio`.

    Raises InputError that begins with `name` for wrong samples, ValueError if none are left.
    """
    levels = Levels(name, channel)
    resampler, rate = None, 0.0
    total = length = 0  # samples taken and given
    for samples, its_rate in itertools.chain(_pieces(blocks, sample_rate), [_END]):
        pieces = []
        if its_rate != rate:
            if resampler is not None:  # gives what it has kept
                pieces.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            resampler, rate = None, its_rate
            if len(samples) and rate != sample_rate:
                resampler = soxr.ResampleStream(rate, sample_rate, 1, "float32", "HQ")
        if len(samples):
            total += len(samples)
            waveform = levels.mix(samples, rate)
            pieces.append(waveform if resampler is None else resampler.resample_chunk(waveform))
        for piece in pieces:
            if len(piece):
                length += len(piece)
                levels.measure(piece)
                yield piece
    if not length:
        short = f"too short, no sample is left at {sample_rate} Hz"
        raise ValueError(short if total else "it has no samples")
    notes += levels.notes()


def _pieces(
    blocks: Iterable[tuple[np.ndarray, float]], sample_rate: int
) -> Iterator[tuple[np.ndarray, float]]:
    """The same samples, in pieces that stay short at a higher rate: a block may be days of 1 Hz."""
    for samples, rate in blocks:
        step = max(1, int(MAX_BLOCKS * BLOCK * rate / sample_rate))
        for start in range(0, len(samples), step):
            yield samples[start : start + step], rate


def _decode(file: BinaryIO, suffix: str, notes: list[str]) -> Blocks:
    """Samples (l, channels) and their rate, by the decoder that reads the file to its end.

    `suffix`, of its name, helps FFmpeg where the content is ambiguous.
    """
    name = f"recording{suffix}".encode("ascii", "ignore").decode()
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise ValueError("the file is empty (0 bytes): get it again")
    for part in headers.parts(file, size, notes):
        section = headers.Section(file, part.start, part.stop, name)
        reason = ""
        if section.read(4).startswith(LIBSNDFILE) and part.is_finished and part.streams == 1:
            source = _source(file, section)
            try:
                sound = _Sequential(source, closefd=False)
            except soundfile.LibsndfileError as error:
                reason = error.error_string.strip().rstrip(".")
            else:
                with sound:
                    yield from _by_libsndfile(sound, source, section, notes)
                continue
        options = {} if part.is_finished else {"ignore_length": "1"}
        try:
            yield from ffmpeg.blocks(section, BLOCK, notes, **options)
        except ffmpeg.NotAudio as error:
            reason = headers.not_audio(file, size) or reason or str(error)
            raise ValueError(f"not decodable as audio: {reason}") from error


class _Sequential(soundfile.SoundFile):
    """A file that soundfile reads from start to end without seeking.

    After each block it would seek to where it already is, and libsndfile (1.2.2) then spoils the
    last samples of an Opus file.
    """

    def seekable(self) -> bool:
        return False


def _source(file: BinaryIO, section: headers.Section) -> int | headers.Section:
    """What libsndfile opens: of a whole local file the descriptor.

    Otherwise libsndfile calls back into Python, where Ctrl-C is lost.
    """
    section.seek(0)
    if not section.is_whole or not isinstance(file, io.FileIO):
        return section
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return file.fileno()


def _by_libsndfile(
    sound: soundfile.SoundFile,
    source: int | headers.Section,
    section: headers.Section,
    notes: list[str],
) -> Blocks:
    for size, actual in TRUNCATED.findall(sound.extra_info):
        if int(actual) < int(size) < headers.UNKNOWN_SIZE:
            raise ValueError(headers.truncated(int(actual), int(size)))
    total, rate, reason = 0, sound.samplerate, ""
    try:
        while True:
            # Not more than its header says: libsndfile would read on, and forget what it has read.
            count = min(BLOCK, max(1, sound.frames - total))
            samples = sound.read(count, dtype="float32", always_2d=True)  # (l, channels)
            if not len(samples):
                break
            total += len(samples)
            yield samples, rate
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".") or "damaged"  # FLAC gives no reason
    at = os.lseek(source, 0, os.SEEK_CUR) if isinstance(source, int) else source.tell()
    if sound.format == "FLAC" and (reason or at < section.size):  # another one may be appended
        skip, total = total, 0
        for samples, rate in ffmpeg.blocks(section, BLOCK, notes):
            if total + len(samples) > skip:
                yield samples[max(0, skip - total) :], rate
            total += len(samples)
    unread = section.size - total * sound.channels * WIDTHS.get(sound.subtype, np.inf)
    if unread > headers.MAX_UNREAD and sound.format not in ("WAV", "WAVEX", "RF64", "FLAC"):
        if not total:
            raise ValueError("unfinished header: it gives a length of 0 samples")
        notes.append(headers.unread(int(unread)))
    missing = (sound.frames - total) / sound.samplerate
    if reason and missing > 0:
        raise ValueError(f"not decodable as audio: {reason}")
    if ffmpeg.SHORT < missing < MAX_SECONDS:
        notes.append(ffmpeg.incomplete(total / rate, sound.frames / rate))
