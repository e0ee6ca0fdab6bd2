"""Bad recordings through `ergl` and data_prep, and odd ones that work.

What makes a recording bad is tested in tests/audio/test_decode.py.
"""

import json
import struct

import numpy as np
import pytest
import soundfile

RATE = 16000
NOISE = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)


def write(path, samples=NOISE, rate=RATE, **more):
    soundfile.write(path, samples, rate, **more)


def truncate(path):
    write(path)
    path.write_bytes(path.read_bytes()[:32022])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: None, "can't be read: No such file"),
        (lambda path: path.mkdir(), "contains no audio file"),
        (lambda path: path.write_text("no audio " * 99), "not decodable as audio"),
        (truncate, "truncated: 31978 of the 64000 bytes in its header"),
    ],
)
def test_a_bad_recording(commands, tiny, spoil, reason):
    path = commands.here / "a.wav"
    spoil(path)
    bundle = f"--bundle={tiny.workdir / 'bundle'}"
    commands.refuse("ergl", "classify", path, bundle, words=[str(path), reason])
    if "truncated" not in reason:
        return
    commands.refuse("ergl", "explain", path, bundle, f"--out={path}.out", words=[str(path), reason])
    (commands.here / "my.csv").write_text("file,scene,split\na.wav,tram,train\n")
    manifest, out = f"--manifest={commands.here / 'my.csv'}", commands.here.parent
    for command in (
        ["prepare_dataset.py", f"--data_dir={out / 'data'}", "--front_end=panns_16k"],
        ["pseudo_label.py", bundle, f"--out={out / 'a.npz'}"],
    ):
        commands.refuse(*command, manifest, "--strict", words=[f"{path} can't be read: {reason}"])
    assert not list(out.glob("*.npz")) + list(out.glob("data/*/*/*"))


def streamed(path, size: int):
    """A WAV as programs write it into a pipe, where they can't know the size."""
    write(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)


ODD = {
    "short.wav": lambda path: write(path, NOISE[: RATE // 5]),
    "sample.wav": lambda path: write(path, NOISE[:1]),
    "silence.wav": lambda path: write(path, np.zeros(RATE)),
    "flac.wav": lambda path: write(path, format="FLAC"),
    "wav.mp3": lambda path: write(path, format="WAV"),
    "wav.txt": lambda path: write(path, format="WAV"),
    "8 channels.wav": lambda path: write(path, np.tile(NOISE[:, None], 8)),
    "384 kHz.wav": lambda path: write(path, np.tile(NOISE, 12), 384_000),
    "10 Hz.wav": lambda path: write(path, NOISE[:20], 10),
    "64 bit.wav": lambda path: write(path, subtype="DOUBLE"),
    "streamed.wav": lambda path: streamed(path, 0xFFFFFFFF),
    "sox.wav": lambda path: streamed(path, 0x7FFFFFFF - 36),
    "Straße 電車.wav": write,
    "a\nb.wav": write,
    "a\udce9.wav": lambda path: path.write_bytes((path.parent / "64 bit.wav").read_bytes()),
}


def test_odd_recordings_are_classified(commands, tiny):
    paths = [commands.here / name for name in ODD]
    for path, make in zip(paths, ODD.values(), strict=True):
        make(path)
    bundle = f"--bundle={tiny.workdir / 'bundle'}"
    outcome = commands.run("ergl", "classify", *paths, bundle, "--json")
    assert outcome.status == 0 and not outcome.err, outcome
    found = dict(zip(ODD, map(json.loads, outcome.out.splitlines()), strict=True))
    for result in found.values():
        assert sum(result["scenes"].values()) == pytest.approx(1, abs=1e-5)
    assert found["short.wav"]["notes"] == ["padded from 0.2 to 2 s with silence"]
    for name, seconds in {"384 kHz": 1, "10 Hz": 2, "8 channels": 2, "streamed": 2}.items():
        assert found[f"{name}.wav"]["stop"] == pytest.approx(seconds, abs=0.01)
