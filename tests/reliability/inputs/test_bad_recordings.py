"""Wrong recordings through `ergl` and data_prep, and odd ones that work."""

import json
import struct

import numpy as np
import pytest
import soundfile

RATE = 16000
NOISE = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)


def write(path, samples=NOISE, rate=RATE, **more):
    soundfile.write(path, samples, rate, **more)


def cut(path, share=0.5, **more):
    write(path, **more)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def with_sample(path, value):
    samples = NOISE.astype(np.float32)
    samples[RATE] = value
    write(path, samples, subtype="FLOAT")


RECORDINGS = {
    "no such file": ("a.wav", lambda path: None, "can't be opened: No such file"),
    "empty": ("a.wav", lambda path: path.touch(), "the file is empty (0 bytes)"),
    "not audio": ("a.wav", lambda path: path.write_text("no audio " * 99), "can't be decoded as"),
    "random bytes": (
        "a.mp3",
        lambda path: path.write_bytes(np.random.default_rng(3).bytes(500)),
        "can't be decoded as audio",
    ),
    "raw": ("a.raw", lambda path: path.write_bytes(bytes(5000)), "can't be decoded as audio"),
    "no samples": ("a.wav", lambda path: write(path, np.zeros(0)), "holds no samples"),
    "NaN": ("a.wav", lambda path: with_sample(path, np.nan), "samples that are NaN or infinite"),
    "infinite": ("a.wav", lambda path: with_sample(path, -np.inf), "samples that are NaN or inf"),
    "too loud": ("a.wav", lambda path: with_sample(path, 1e30), "a sample of 1e+30"),
    "truncated WAV": ("a.wav", cut, "cut off: 31978 of the 64000 bytes that its header promises"),
    "WAV without its last sample": (
        "a.wav",
        lambda path: cut(path, 1 - 1e-5),
        "cut off: 63999 of the 64000 bytes",
    ),
    "truncated 24 bit WAV": ("a.wav", lambda path: cut(path, subtype="PCM_24"), "cut off: "),
    "truncated AIFF": ("a.aiff", cut, "cut off: "),
    "truncated FLAC": ("a.flac", cut, "can't be decoded as audio: "),
    "a WAV's header alone": ("a.wav", lambda path: cut(path, 44 / 64044), "cut off: 0 of the"),
    "half a header": ("a.wav", lambda path: cut(path, 20 / 64044), "can't be decoded as audio"),
    "folder": ("a.wav", lambda path: path.mkdir(), "holds no audio file"),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_wrong_recording(commands, tiny, name):
    file, spoil, reason = RECORDINGS[name]
    path = commands.here / file
    spoil(path)
    bundle = f"--bundle={tiny.workdir / 'bundle'}"
    commands.refuse("ergl", "classify", path, bundle, words=[str(path), reason])
    if name not in ("folder", "no such file"):
        return
    arguments = [path, bundle, f"--out={commands.here / 'out'}"]
    commands.refuse("ergl", "explain", *arguments, words=[str(path), "can't be opened"])


@pytest.mark.parametrize("command", ["prepare_dataset.py", "pseudo_label.py"])
def test_the_other_readers_of_recordings(commands, tiny, tmp_path, command):
    """What `classify` refuses, they refuse by the same words; they read by the same function."""
    cut(commands.here / "a.wav")
    (commands.here / "my.csv").write_text("file,scene,split\na.wav,tram,train\n")
    arguments = [f"--manifest={commands.here / 'my.csv'}", "--strict"]
    arguments += {
        "prepare_dataset.py": [f"--data_dir={tmp_path / 'data'}", "--front_end=panns_16k"],
        "pseudo_label.py": [f"--bundle={tiny.workdir / 'bundle'}", f"--out={tmp_path / 'a.npz'}"],
    }[command]
    commands.refuse(command, *arguments, words=[f"{commands.here}/a.wav: cut off"])
    assert not list(tmp_path.glob("*.npz")) + list(tmp_path.glob("data/*/*/*"))


def streamed(path, size: int):
    """A WAV as programs write it into a pipe: of a size that they don't know."""
    write(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)


WORKING = {
    "a fifth of a second": ("a.wav", lambda path: write(path, NOISE[: RATE // 5])),
    "a single sample": ("a.wav", lambda path: write(path, NOISE[:1])),
    "silence": ("a.wav", lambda path: write(path, np.zeros(RATE))),
    "FLAC named WAV": ("a.wav", lambda path: write(path, format="FLAC")),
    "WAV named MP3": ("a.mp3", lambda path: write(path, format="WAV")),
    "WAV named TXT": ("a.txt", lambda path: write(path, format="WAV")),
    "8 channels": ("a.wav", lambda path: write(path, np.tile(NOISE[:, None], 8))),
    "384 kHz": ("a.wav", lambda path: write(path, np.tile(NOISE, 12), 384_000)),
    "10 Hz": ("a.wav", lambda path: write(path, NOISE[:20], 10)),
    "64 bit": ("a.wav", lambda path: write(path, subtype="DOUBLE")),
    "streamed": ("a.wav", lambda path: streamed(path, 0xFFFFFFFF)),
    "streamed by sox": ("a.wav", lambda path: streamed(path, 0x7FFFFFFF - 36)),
    "Unicode": ("Straße 電車.wav", write),
    "a line break": ("a\nb.wav", write),
    "no UTF-8": (
        "a\udce9.wav",
        lambda path: (write(path.parent / "b.wav"), (path.parent / "b.wav").rename(path)),
    ),
}


@pytest.mark.parametrize("name", WORKING)
def test_an_odd_recording_is_classified(commands, tiny, name):
    file, make = WORKING[name]
    path = commands.here / file
    make(path)
    outcome = commands.run(
        "ergl", "classify", path, f"--bundle={tiny.workdir / 'bundle'}", "--json"
    )
    assert outcome.status == 0 and not outcome.err, outcome
    (line,) = outcome.out.splitlines()
    found = json.loads(line)
    assert sum(found["scenes"].values()) == pytest.approx(1, abs=1e-5)
    if name == "a fifth of a second":
        assert found["notes"] == ["0.2 s are filled with silence to 2 s"]
    if name in ("384 kHz", "10 Hz", "8 channels", "streamed"):
        assert found["stop"] == pytest.approx(1.0 if name == "384 kHz" else 2.0, abs=0.01)
