"""Decodes with FFmpeg (PyAV) the formats that libsndfile cannot read completely."""

import functools
import io
import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

Blocks = Iterator[tuple[np.ndarray, int]]  # samples (l, channels) float32, l >= 1, and their rate

# FFmpeg's other formats are text or pictures, or open further files and addresses.
FORMATS = (
    *("mp3", "aac", "mov", "matroska", "asf", "amr", "amrnb", "amrwb", "ogg", "flac", "wav", "w64"),
    *("aiff", "caf", "au", "wv", "tta", "ape", "ac3", "eac3", "avi", "flv", "mpeg", "mpegts"),
)
# The formats with the recording's duration in their header.
TIMED = ("mov", "matroska", "asf", "flac", "wav", "aiff", "caf", "wv", "tta", "ape", "avi")
SHORT = 0.25  # seconds that may be missing of it: encoders count their delay or don't
DAMAGED = 1000  # bytes that may be no frames: tags, a frame that is cut off at the end


class NotAudio(ValueError):
    """A file without an audio stream that FFmpeg can decode."""


@functools.cache
def library() -> ModuleType:
    """PyAV, which keeps FFmpeg's messages to itself."""
    import av  # not above: most recordings don't need it

    av.logging.set_level(av.logging.PANIC)
    return av


def version() -> str:
    """Of FFmpeg and of PyAV."""
    av = library()
    return f"{av.ffmpeg_version_info}, by av {av.__version__}"


def blocks(file: io.RawIOBase, block: int, notes: list[str], **options: str) -> Blocks:
    """Yields the samples of a file's audio stream, at least `block` at a time, to its end.

    Args:
      file: opened, with a name, whose suffix helps where the content is ambiguous.
      block: samples.
      notes: receives, at the end, what of the recording could not be decoded.
      options: of FFmpeg's demuxer.

    Raises NotAudio.
    """
    av = library()
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    allowed = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": ""}
    # Replace invalid UTF-8 in tags; PyAV 19 has no argument for this.
    tags = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}
    try:
        container = av.open(file, options=allowed | options, **tags)
    except av.FFmpegError as error:
        raise NotAudio(_reason(error)) from error
    with container:
        stream = container.streams.best("audio")
        if stream is None:
            raise NotAudio("it has no audio stream that can be decoded")
        if (count := len(container.streams.audio)) > 1:
            notes.append(f"has {count} audio streams; FFmpeg's default is used")
        decoder = _Decoder(av, container, stream, size)
        waiting: list[np.ndarray] = []
        rate = length = 0
        for samples, its_rate in decoder:
            same = waiting and its_rate == rate and samples.shape[1] == waiting[0].shape[1]
            if waiting and (not same or length >= block):
                yield np.concatenate(waiting), rate
                waiting, length = [], 0
            waiting.append(samples)
            rate, length = its_rate, length + len(samples)
        if not rate:
            raise NotAudio("nothing in it could be decoded")
        yield np.concatenate(waiting), rate
        if decoder.problem:
            notes.append(decoder.problem)


def incomplete(decoded: float, seconds: float) -> str:
    """The note on a recording of which less was decoded than its header says, in seconds."""
    return f"only {decoded:.1f} of {seconds:.1f} s decoded: cut off or damaged"


class _Decoder:
    """Iterates over the frames of a stream as (l, channels) float32 and their rate."""

    def __init__(self, av: ModuleType, container: Any, stream: Any, size: int):
        self._av, self._container, self._stream = av, container, stream
        self._format = container.format.name.partition(",")[0]
        self._seconds = 0.0  # decoded so far
        # Bytes. Of ADTS, which is nothing but frames, all that are in no frame; FFmpeg drops them.
        self._damaged = size if self._format == "aac" else 0
        self._stopped = ""

    def __iter__(self) -> Blocks:
        for packet in self._packets():
            if self._format == "aac":
                self._damaged -= packet.size
            try:
                frames = packet.decode()
            except self._av.FFmpegError:
                self._damaged += packet.size
                continue
            for frame in frames:
                if frame.samples:
                    self._seconds += frame.samples / frame.rate
                    yield _samples(frame), frame.rate

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self._container.demux(self._stream)
        except self._av.FFmpegError as error:
            self._stopped = _reason(error)

    @property
    def problem(self) -> str:
        """What is missing, as a note, or ""."""
        seconds = self._header_seconds()
        if self._stopped:
            return f"reading stopped after {self._seconds:.1f} s: {self._stopped}"
        if seconds and self._seconds < seconds - SHORT:
            return incomplete(self._seconds, seconds)
        if self._damaged > DAMAGED:
            return f"{self._damaged} bytes in it are not audio or damaged, and were skipped"
        return ""

    def _header_seconds(self) -> float:
        """The duration in the header; 0 if it has none."""
        stream, container = self._stream, self._container
        # Of an MP3 the duration is known if its first frame says how many there are, which then
        # also says how much the encoder has put before the first sample.
        if self._format == "mp3" and not stream.start_time:
            return 0.0
        if self._format != "mp3" and self._format not in TIMED:
            return 0.0
        if stream.duration:
            return float(stream.duration * stream.time_base)
        alone = len(container.streams) == 1
        return container.duration / 1e6 if container.duration and alone else 0.0


def _samples(frame: Any) -> np.ndarray:
    """A frame as (l, channels) float32, integer formats scaled to full scale 1."""
    values = frame.to_ndarray()  # (channels, l), or (1, l channels)
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        values = (values.astype(np.float32) - 128) / 128
    elif values.dtype.kind == "i":
        values = values.astype(np.float32) / -float(np.iinfo(values.dtype).min)
    return values.astype(np.float32, copy=False).T


def _reason(error: Any) -> str:
    """FFmpeg's last message, without the decoder's name, or else the kind of error."""
    log = getattr(error, "log", None)
    text = (log[2] if log else error.strerror or type(error).__name__).strip().rstrip(".")
    if text == "moov atom not found":
        return "cut off, its index at the end is missing: get it again, whole"
    return text
