"""Recordings of the kinds that phones, recorders and web pages make, encoded by PyAV."""

import struct

import av
import numpy as np


def encode(
    path,
    samples,
    rate,
    codec,
    *,
    container=None,
    options=None,
    quality=None,
    bit_rate=None,
    video=False,
):
    """Writes samples (L,) or (L, channels) at `rate` Hz.

    Args:
      path: its suffix decides the container, unless `container` names one.
      codec: FFmpeg's name of an encoder.
      options: of the container.
      quality: a variable bit rate; 0 is best.
      bit_rate: bits per second.
      video: also write two pictures, before the sound.
    """
    samples = np.asarray(samples, np.float32).reshape(len(samples), -1).T
    layout = "mono" if len(samples) == 1 else "stereo"
    with av.open(str(path), "w", format=container, options=options or {}) as out:
        pictures = out.add_stream("mpeg4", rate=1) if video else None
        stream = out.add_stream(codec, rate=rate, layout=layout)
        if pictures:
            pictures.width = pictures.height = 16
            for _ in range(2):
                out.mux(pictures.encode(av.VideoFrame(16, 16, "yuv420p")))
            out.mux(pictures.encode(None))
        if bit_rate:
            stream.bit_rate = bit_rate
        if quality is not None:
            stream.codec_context.flags |= av.codec.context.Flags.qscale
            stream.codec_context.global_quality = 118 * quality  # FFmpeg's FF_QP2LAMBDA
        form = stream.codec_context.format.name
        resampler = av.AudioResampler(form, layout, rate, stream.codec_context.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
        frame.rate = rate
        for each in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(each))
        out.mux(stream.encode(None))
    return path


def set_sizes(content, riff, data):
    """A WAV with other sizes in its header."""
    changed, at = bytearray(content), content.index(b"data")
    changed[4:8], changed[at + 4 : at + 8] = struct.pack("<I", riff), struct.pack("<I", data)
    return bytes(changed)


def insert_chunk(content, name, size):
    """A WAV with a chunk of zeros before its format, as recorders reserve."""
    return content[:12] + name + struct.pack("<I", size) + bytes(size) + content[12:]
