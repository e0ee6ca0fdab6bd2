"""Recordings as people have them are read to their end, and what is unusual is noted."""

import tracemalloc

import av
import numpy as np
import pytest
import soundfile
from made_recordings import encode, insert_chunk, set_sizes

from ergl_jax.audio import read_audio, stream_audio
from ergl_jax.errors import InputError

RATE = 44100


def sound(seconds=3.0, rate=RATE, channels=1, level=0.3):
    """A chord that fades in, of another frequency in each channel."""
    t = np.arange(round(seconds * rate)) / rate
    tones = [np.sin(2 * np.pi * 440 * (1 + k) * t) * t / seconds for k in range(channels)]
    return (level * np.stack(tones, axis=1)).astype(np.float32)


def read(path, rate=RATE, channel="mean"):
    notes = []
    return read_audio(path, rate, channel, notes), notes


def assert_sounds_like(found, expected, rate=RATE, seconds=0.05):
    """The same length to 50 ms, and the same samples but for a delay of at most that."""
    assert abs(len(found) - len(expected)) <= seconds * rate
    length = min(len(found), len(expected))
    spectra = np.fft.rfft([found[:length], expected[:length]], 2 * length)
    correlation = np.fft.irfft(spectra[0] * spectra[1].conj())
    delay = (np.argmax(correlation) + length) % (2 * length) - length
    assert abs(delay) <= seconds * rate
    powers = np.linalg.norm(found[:length]) * np.linalg.norm(expected[:length])
    assert correlation.max() > 0.97 * powers


def zeros_over(content, start, size):
    return content[:start] + bytes(size) + content[start + size :]


def id3(size, seed=0):
    """A tag of random bytes, such as a picture."""
    digits = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    noise = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    return b"ID3\3\0\0" + digits + noise.tobytes()


@pytest.fixture(scope="module")
def mp3(tmp_path_factory):
    """Three seconds without a first frame that says how many there are, and the samples."""
    path = tmp_path_factory.mktemp("mp3") / "plain.mp3"
    samples = sound()
    encode(path, samples, RATE, "libmp3lame", options={"write_xing": "0"})
    return path.read_bytes(), samples[:, 0]


@pytest.mark.parametrize("order", [1, -1])
def test_a_variable_bit_rate_is_read_to_its_end(tmp_path, order):
    loud = np.random.default_rng(0).uniform(-0.9, 0.9, 6 * RATE)
    samples = np.concatenate([loud, np.zeros(6 * RATE)])[::order]
    path = tmp_path / "variable.mp3"
    encode(path, samples, RATE, "libmp3lame", options={"write_xing": "0"}, quality=2)
    found, notes = read(path)
    assert len(found) == pytest.approx(12 * RATE, abs=0.06 * RATE) and notes == []
    halves = np.square(found[: 11 * RATE].reshape(2, -1)).mean(axis=1)[::order]
    assert halves[0] > 0.01 and halves[0] > 10 * halves[1]


@pytest.mark.parametrize(
    "change, times, lost",
    [
        (lambda x: x, 1, 0),
        (lambda x: bytes(5000) + x, 1, 0),
        (lambda x: bytes(300_000) + x, 1, 1),
        (lambda x: bytes(2_000_000) + x, 1, 1),
        (lambda x: x + bytes(50_000), 1, 0),
        (lambda x: x[:20_000] + bytes(8000) + x[20_000:], 1, 1),
        (lambda x: id3(1000) + x, 1, 0),
        (lambda x: id3(3_000_000) + x, 1, 0),
        (lambda x: x + b"TAG" + bytes(125) + x, 2, 1),
        (lambda x: id3(50_000) + x + id3(50_000) + x, 2, 2),
        (lambda x: x * 3, 3, 3),
    ],
)
def test_an_mp3_is_decoded_among_zeros_tags_and_others(tmp_path, mp3, capfd, change, times, lost):
    content, samples = mp3
    for name in ("changed.mp3", "changed"):
        (tmp_path / name).write_bytes(change(content))
        found, notes = read(tmp_path / name)
        frames = 1152 * (lost + 2 * times)  # of the encoder's delay, and next to what is no frame
        assert abs(len(found) - times * len(samples)) <= frames
        assert len(notes) <= 1 and all("not audio or damaged" in note for note in notes)
    assert capfd.readouterr() == ("", "")


def test_frames_that_were_overwritten_are_noted(tmp_path, mp3):
    content, samples = mp3
    (tmp_path / "damaged.mp3").write_bytes(zeros_over(content, 10_000, 12_000))
    found, (note,) = read(tmp_path / "damaged.mp3")
    assert len(found) < 0.9 * len(samples) and "not audio or damaged" in note


@pytest.mark.parametrize(
    "links",
    [
        ["VORBIS 44100 1", "VORBIS 44100 1"],
        ["OPUS 48000 2", "OPUS 48000 2", "OPUS 48000 2"],
        ["VORBIS 44100 2", "VORBIS 48000 1"],
        ["OPUS 16000 1", "OPUS 48000 2"],
        ["VORBIS 22050 1", "OPUS 48000 2", "VORBIS 44100 1"],
    ],
)
def test_all_links_of_an_ogg_are_read(tmp_path, links):
    contents, expected = [], []
    for k, link in enumerate(links):
        subtype, rate, channels = link.split()
        path, samples = tmp_path / f"{k}.ogg", sound(2 + k, int(rate), int(channels))
        soundfile.write(path, samples, int(rate), format="OGG", subtype=subtype)
        contents.append(path.read_bytes())
        expected.append(read(path, 48000)[0])
    (tmp_path / "chain.ogg").write_bytes(b"".join(contents))
    found, notes = read(tmp_path / "chain.ogg", 48000)
    assert notes == [] and abs(len(found) - sum(map(len, expected))) <= len(links)
    if len(set(links)) == 1:  # one resampler, as of a single stream
        assert_sounds_like(found, np.concatenate(expected), 48000, 0.001)
    else:
        np.testing.assert_array_equal(found, np.concatenate(expected))


@pytest.mark.parametrize("kind", ["CAF", "AIFF", "AU", "W64"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_half_a_recording_is_an_error(tmp_path, kind, subtype):
    path = tmp_path / "half"
    soundfile.write(path, sound(), RATE, format=kind, subtype=subtype)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="half.*truncated.*get it again"):
        read(path)


@pytest.mark.parametrize("name", ["a.m4a", "a.mov", "a.mp4"])
def test_what_follows_an_mp4_is_noted(tmp_path, name):
    path = encode(tmp_path / name, sound(), RATE, "aac")
    expected, content = read(path)[0], path.read_bytes()
    for more, count in ((bytes(100_000), 0), (bytes(9) + b"x" * 100_000, 1)):
        path.write_bytes(content + more)
        found, notes = read(path)
        np.testing.assert_array_equal(found, expected)
        assert len(notes) == count and all(
            "beyond the length in the header" in note for note in notes
        )


def test_half_an_avi_is_noted(tmp_path):
    path = encode(tmp_path / "a.avi", sound(), RATE, "pcm_s16le")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    found, (note,) = read(path)
    assert RATE < len(found) < 2 * RATE and "cut off" in note


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF", "AU", "CAF"])
def test_files_one_after_the_other_are_all_read(tmp_path, kind):
    samples = sound(8.0, channels=2)
    path = tmp_path / f"one.{kind.lower()}"
    soundfile.write(path, samples, RATE, format=kind)
    one = read(path)[0]
    path.write_bytes(path.read_bytes() * 2)
    found, notes = read(path)
    np.testing.assert_array_equal(found, np.concatenate([one, one]))
    assert notes == []


@pytest.mark.parametrize("name", ["a.m4a", "a.mov", "fragments.mp4", "a.avi"])
def test_all_of_joined_videos_is_read(tmp_path, name):
    options = PHONES.get(name, ("", 0, {}))[2]
    path = encode(tmp_path / name, sound(), RATE, "mp3" if name == "a.avi" else "aac", **options)
    one = read(path)[0]
    path.write_bytes(path.read_bytes() * 2)
    found, notes = read(path)
    np.testing.assert_array_equal(found, np.concatenate([one, one]))
    assert notes == []


CHUNKS = [(), (b"JUNK", 28), (b"FLLR", 4044)]
SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize("riff, data", [(0, 0), (36, 0), (44136, 44100 * 2), (1 << 31, 0)])
def test_a_wav_that_was_not_closed_is_read_to_the_end(tmp_path, chunk, subtype, riff, data):
    path = tmp_path / "open.wav"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * RATE, 2))
    soundfile.write(path, samples, RATE, subtype=subtype)
    expected, notes = read(path)
    assert notes == []
    content = set_sizes(path.read_bytes(), riff, data)
    content = insert_chunk(content, *chunk) if chunk else content
    path.write_bytes(content[: -16 if subtype in ("FLOAT", "DOUBLE", "ULAW") else None])
    found, notes = read(path)
    assert len(expected) - len(found) <= 8
    np.testing.assert_array_equal(found, expected[: len(found)])
    assert notes == ["unfinished header: read to the end of the file"]


def test_an_rf64_that_was_not_closed_is_read_to_the_end(tmp_path):
    samples = sound(channels=2)
    soundfile.write(tmp_path / "long.wav", samples, RATE, format="RF64", subtype="PCM_16")
    content = bytearray((tmp_path / "long.wav").read_bytes())
    expected, notes = read(tmp_path / "long.wav")
    assert notes == []
    assert content[12:16] == b"ds64"
    content[20:44] = bytes(24)  # sizes of the file and of its data, number of samples
    at = content.index(b"data")
    content[at + 4 : at + 8] = b"\xff" * 4
    (tmp_path / "open.wav").write_bytes(content)
    found, notes = read(tmp_path / "open.wav")
    np.testing.assert_array_equal(found, expected)
    assert len(notes) == 1


@pytest.mark.parametrize("more", [0, 1, 8, 36, 44, "unknown"])
def test_miscounted_sizes_of_a_wav_are_no_truncation(tmp_path, more):
    path = tmp_path / "miscounted.wav"
    samples = sound()
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    expected, content = read(path)[0], path.read_bytes()
    size = 0xFFFFFFFF if more == "unknown" else 2 * len(samples) + more
    path.write_bytes(set_sizes(content, min(size + 36, 0xFFFFFFFF), size))
    found, notes = read(path)
    np.testing.assert_array_equal(found, expected)
    assert notes == []


@pytest.mark.parametrize(
    "after", [b"", b"\0", b"LIST\4\0\0\0INFO", b"id3 \3\0\0\0abc\0", bytes(999)]
)
def test_what_follows_the_samples_of_a_wav_is_no_sound(tmp_path, after):
    path = tmp_path / "tagged.wav"
    soundfile.write(path, sound(), RATE, subtype="PCM_16")
    expected = read(path)[0]
    path.write_bytes(path.read_bytes() + after)
    found, notes = read(path)
    np.testing.assert_array_equal(found, expected)
    assert notes == []


PHONES = {  # the file's name: encoder, Hz, arguments of `encode`
    "a.m4a": ("aac", RATE, {}),
    "lossless.m4a": ("alac", RATE, {}),
    "fragments.mp4": ("aac", RATE, {"options": {"movflags": "frag_keyframe+empty_moov"}}),
    "video.mp4": ("aac", RATE, {"video": True}),
    "a.mov": ("aac", RATE, {}),
    "a.aac": ("aac", RATE, {"container": "adts"}),
    "a.webm": ("libopus", 48000, {}),
    "a.mka": ("libopus", 48000, {}),
    "a.wma": ("wmav2", RATE, {"container": "asf", "bit_rate": 64000}),
    "a.3gp": ("aac", RATE, {}),
    "speech.3gp": ("libopencore_amrnb", 8000, {}),
    "a.amr": ("libopencore_amrnb", 8000, {}),
    "a.mp3": ("libmp3lame", RATE, {}),
    "a.mp2": ("mp2", RATE, {}),
    "a.opus": ("libopus", 48000, {}),
    "a.caf": ("pcm_s16be", RATE, {}),
    "a.au": ("pcm_s16be", RATE, {}),
    "a.w64": ("pcm_s16le", RATE, {}),
    "a.aif": ("pcm_s16be", RATE, {}),
    "a.ac3": ("ac3", RATE, {}),
}


@pytest.mark.parametrize("name", PHONES)
def test_every_format_sounds_like_its_wav(tmp_path, name):
    codec, rate, arguments = PHONES[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    samples = sound(rate=rate)[:, 0]
    encode(tmp_path / name, samples, rate, codec, **arguments)
    found, notes = read(tmp_path / name, rate)
    assert notes == []
    assert_sounds_like(found, samples, rate)
    for other in ("without_suffix", "not_utf8_\udce9." + name):
        (tmp_path / other).write_bytes((tmp_path / name).read_bytes())
        np.testing.assert_array_equal(read(tmp_path / other, rate)[0], found)


def patched(content, at, size, value, order="big"):
    return content[:at] + value.to_bytes(size, order) + content[at + size :]


@pytest.mark.parametrize("frames", [0, 44100])
def test_a_flac_with_another_length_in_its_header_is_read_to_the_end(tmp_path, frames):
    path = tmp_path / "a.flac"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * RATE)
    soundfile.write(path, samples, RATE)
    expected, content = read(path)[0], path.read_bytes()
    fields = int.from_bytes(content[18:26]) >> 36 << 36  # rate, channels, bits; number of samples
    path.write_bytes(patched(content, 18, 8, fields | frames))
    found, notes = read(path)
    np.testing.assert_array_equal(found, expected)
    assert notes == []


@pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF", "W64"])
def test_a_length_that_is_too_short_is_noted_or_not_believed(tmp_path, kind):
    path = tmp_path / "a"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 5 * RATE), RATE, format=kind)
    expected, content = read(path)[0], path.read_bytes()
    name, at, size, order = {
        "AIFF": (b"SSND", 4, 4, "big"),
        "AU": (b".snd", 8, 4, "big"),
        "CAF": (b"data", 4, 8, "big"),
        "W64": (b"data", 16, 8, "little"),
    }[kind]
    path.write_bytes(patched(content, content.index(name) + at, size, 2 * RATE, order))
    found, notes = read(path)
    assert len(found) == len(expected) or "beyond the length in the header" in notes[0]


def test_a_recording_that_was_cut_off_says_so(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, 6 * RATE)
    written = {
        "a.mp3": ("libmp3lame", {}),
        "a.mp4": ("aac", {"options": {"movflags": "faststart"}}),
        "a.mka": ("aac", {}),
        "a.opus": ("libopus", {}),
    }
    for name, (codec, arguments) in written.items():
        rate = 48000 if codec == "libopus" else RATE
        encode(tmp_path / name, samples, rate, codec, **arguments)
    soundfile.write(tmp_path / "a.ogg", samples, RATE)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        found, (note,) = read(path)
        assert RATE < len(found) < 5 * RATE and "cut off" in note, path
    encode(tmp_path / "late.m4a", samples, RATE, "aac")  # its index is at the end
    path = tmp_path / "late.m4a"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match="late.m4a.*cut off"):
        read(path)


@pytest.mark.parametrize("name", ["a.m4a", "a.aac", "a.webm", "a.wma", "a.opus"])
def test_damage_in_the_middle_is_noted(tmp_path, name):
    codec, rate, arguments = PHONES[name]
    path = encode(tmp_path / name, sound(12, rate), rate, codec, **arguments)
    content = path.read_bytes()
    path.write_bytes(zeros_over(content, len(content) // 2, len(content) // 8))
    found, notes = read(path, rate)
    assert len(found) < 11.7 * rate and notes, notes


def test_the_first_of_several_audio_streams_is_noted(tmp_path):
    import av

    path = tmp_path / "two.mka"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for level, stream in zip((1000, 2000), streams, strict=True):
            values = np.full((1, RATE), level, np.int16)
            frame = av.AudioFrame.from_ndarray(values, "s16", "mono")
            frame.rate = RATE
            out.mux(stream.encode(frame))
    found, (note,) = read(path)
    assert len(found) == RATE and np.unique(found).size == 1 and "2 audio streams" in note


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>Please log in</html>", "web page.*download it again"),
        (b"\n <html>" + b"x" * 5000, "web page"),
        (b'{"error": "not found"}', "text.*error"),
        (b"#EXTM3U\nhttp://127.0.0.1/a.mp3\n", "playlist"),
        (b"", "0 bytes.*get it again"),
        (bytes(100_000), "only zeros"),
        (b"PK\3\4" + bytes(100), "ZIP archive: unpack it"),
        (b"MThd" + bytes(100), "MIDI"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "picture"),
    ],
)
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.ogg", "a.m4a", "a"])
def test_no_recordings_are_named_for_what_they_are(tmp_path, capfd, content, reason, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_video_without_sound_and_noise_are_no_recordings(tmp_path):
    import av

    with av.open(str(tmp_path / "mute.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=1)
        stream.width = stream.height = 16
        out.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        out.mux(stream.encode(None))
    with pytest.raises(InputError, match="mute.mp4.*no audio stream"):
        read(tmp_path / "mute.mp4")
    noise = np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8).tobytes()
    (tmp_path / "noise.wav").write_bytes(noise)
    with pytest.raises(InputError, match="noise.wav can't be read: not decodable as audio: "):
        read(tmp_path / "noise.wav")


@pytest.mark.parametrize("kind", ["wav", "m4a"])
@pytest.mark.parametrize(
    "gains, channel, noted",
    [
        ((1, 1), "mean", False),
        ((1, 0), "mean", False),
        ((1, -1), "mean", True),
        ((1, -0.95), "mean", True),
        ((1, -1), "left", False),
        ((1, -1), "right", False),
        ((0, 1), "left", True),
        ((0, 1), "right", False),
    ],
)
def test_channels_that_cancel_are_noted(tmp_path, kind, gains, channel, noted):
    samples = sound() * np.float32(gains)
    if kind == "wav":
        soundfile.write(tmp_path / "a.wav", samples, RATE)
    else:
        encode(tmp_path / "a.m4a", samples, RATE, "alac")
    found, notes = read(tmp_path / f"a.{kind}", channel=channel)
    mixed = {"mean": samples.mean(axis=1), "left": samples[:, 0], "right": samples[:, 1]}[channel]
    np.testing.assert_allclose(found, mixed, atol=2**-14)
    assert len(notes) == noted and all(
        wanted in note for note in notes for wanted in ("--channel=left", "=paper:left")
    )


def test_the_right_channel_of_a_mono_recording_is_its_only_one(tmp_path):
    soundfile.write(tmp_path / "mono.wav", sound(), RATE)
    np.testing.assert_array_equal(
        read(tmp_path / "mono.wav", channel="right")[0], read(tmp_path / "mono.wav")[0]
    )


@pytest.mark.parametrize(
    "samples, rate, wanted",
    [
        (np.full(RATE, 9830.0), RATE, "9830"),
        (np.full(RATE, 9.0), RATE, None),
        (np.zeros(RATE), RATE, "silence"),
        (np.full(100, 0.1), 1, "1 Hz"),
        (np.full(8000, 0.1), 8000, None),
    ],
)
def test_unusual_levels_and_rates_are_noted(tmp_path, samples, rate, wanted):
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    notes = read(tmp_path / "a.wav", 16000)[1]
    assert len(notes) == (wanted is not None) and all(wanted in note for note in notes)


def test_a_low_rate_takes_little_memory(tmp_path):
    """Eighteen hours at 1 Hz, as a wrong header says, would be 2 GB of float32 in one block."""
    soundfile.write(tmp_path / "a.wav", np.full(1 << 16, 0.1), 1)
    blocks = stream_audio(tmp_path / "a.wav", 8000)
    assert max(len(next(blocks)) for _ in range(3)) < 2e7
    blocks.close()


def test_memory_does_not_grow_with_the_length_of_an_mp3(tmp_path):
    """Ten minutes at 8 kHz are 19 MB of float32."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 600 * 8000)
    path = encode(tmp_path / "long.mp3", noise, 8000, "libmp3lame")
    read(path, 8000)  # what PyAV keeps
    tracemalloc.start()
    try:
        total = sum(len(block) for block in stream_audio(path, 8000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert abs(total - len(noise)) < 400 and peak < 10e6
