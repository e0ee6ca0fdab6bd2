"""Bundles that were edited, cut or exchanged, and targets of what is written, through `ergl`."""

import io
import json
import os
import shutil
import struct
import tarfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file


def edited(**changes):
    """Changes fields of config.json, "model.name" those inside; ... removes one."""

    def spoil(directory):
        path = directory / "config.json"
        config = json.loads(path.read_text())
        for name, value in changes.items():
            *outer, last = name.split("__")
            place = config
            for key in outer:
                place = place[key]
            if value is ...:
                del place[last]
            else:
                place[last] = value
        path.write_text(json.dumps(config))

    return spoil


def text(content: bytes):
    return lambda directory: (directory / "config.json").write_bytes(content)


def weights(change):
    def spoil(directory):
        path = directory / "model.safetensors"
        save_file(change(load_file(path)), path)

    return spoil


def raw(change):
    def spoil(directory):
        path = directory / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return spoil


def header(length: int):
    return raw(lambda content: struct.pack("<Q", length) + content[8:])


def tar(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.add(__file__, arcname="../../evil")
    return buffer.getvalue()


def first(flat, change):
    name = sorted(flat)[0]
    return flat | {name: change(flat[name])}


SCENES = [f"scene {i}" for i in range(10)]
OTHER = {
    **{"name": "panns_32k", "sample_rate": 32000, "window": "hann", "n_fft": 1024, "hop": 320},
    **{"n_mels": 64, "fmin": 50.0, "fmax": 14000.0},
}
BUNDLES = {
    "no bundle": (shutil.rmtree, "it has no config.json"),
    "no config": (lambda d: (d / "config.json").unlink(), "it has no config.json"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "it has no model.safetensors"),
    "config is a folder": (
        lambda d: ((d / "config.json").unlink(), (d / "config.json").mkdir()),
        "config.json: can't be read",
    ),
    "empty": (text(b""), "config.json is not JSON"),
    "half": (text(b'{"format": 1, "mod'), "config.json is not JSON"),
    "no text": (text(b"\xff\x00\xfa"), "config.json is not JSON"),
    "nested": (text(b"[" * 100_000), "config.json is not JSON"),
    "a list": (text(b"[]"), "config.json: what it holds is no object of fields: []"),
    "null": (text(b"null"), "config.json: what it holds is no object of fields: None"),
    "newer": (edited(format=2), "format=2, and this version reads 1 alone: install the version"),
    "format in words": (edited(format="1"), "format='1'"),
    **{
        f"no {name}": (edited(**{name.replace(".", "__"): ...}), f"config.json: {name} is missing")
        for name in (
            *("format", "model", "scenes", "events", "front_end", "clip_seconds", "pad"),
            *("licence", "dataset", "model.name", "model.encoder", "model.encoder.architecture"),
            *("model.channels", "model.gcn", "model.gcn.layers", "front_end.hop"),
        )
    },
    "model is a list": (edited(model=[]), "config.json: model is no object of fields: []"),
    "channels in words": (edited(model__channels="4"), "model.channels='4' is no whole number"),
    "mel in words": (edited(model__mel="yes"), "model.mel='yes' is no true or false"),
    "clip_seconds in words": (edited(clip_seconds="2"), "clip_seconds='2' is no finite number"),
    "scenes in words": (edited(scenes="tram"), "scenes='tram' is no list"),
    "scenes of numbers": (edited(scenes=list(range(10))), "scenes is no list of names"),
    "licence null": (edited(licence=None), "licence=None is no text"),
    "unknown model": (edited(model__name="rnn"), "model.name='rnn' is not one of"),
    "unknown encoder": (edited(model__encoder__architecture="cnn15"), "'cnn15'"),
    "a million layers": (edited(model__gcn__layers=10**6), "model.gcn.layers=1000000"),
    "no width": (edited(model__encoder__width_divisor=0), "model.encoder.width_divisor=0"),
    "huge number": (edited(clip_seconds=10**400), "clip_seconds=1"),
    "NaN": (edited(temperature=float("nan")), "temperature=nan is no finite number"),
    "no temperature": (edited(temperature=0), "temperature=0 is not from 0.001"),
    "an age": (edited(clip_seconds=1e9), "clip_seconds=1000000000.0 is not from"),
    "unknown front end": (edited(front_end__name="mel"), "can't reproduce the front end"),
    "bent front end": (edited(front_end__fmax=7000.0), "can't reproduce the front end"),
    "another front end": (edited(front_end=OTHER), "is not the one that model.safetensors"),
    "other names": (edited(scenes=SCENES), "is not the one that model.safetensors"),
    "another licence": (edited(licence="CC0"), "is not the one that model.safetensors"),
    "a scene twice": (edited(scenes=["tram"] * 10), "scenes names 'tram' twice"),
    "a scene too few": (
        edited(scenes=SCENES[:9]),
        "params/head/scene/bias is float32 (10,), the model",
    ),
    "no scenes": (edited(scenes=[]), "scenes is empty"),
    "an event too few": (
        edited(events=["Dog"]),
        "params/events/bias is float32 (4, 1, 4), the model",
    ),
    "path tricks in names": (
        weights(lambda flat: flat | {"params/../../evil": np.zeros(1, np.float32)}),
        "params/../../evil is missing from the weights or the model",
    ),
    "a name inside a name": (
        weights(lambda flat: flat | {"params": np.zeros(1, np.float32)}),
        "params is missing from the weights or the model",
    ),
    "weights missing": (weights(lambda flat: dict(list(flat.items())[1:])), "is missing from the"),
    "another shape": (weights(lambda flat: first(flat, lambda x: x[None])), "the model has"),
    "half precision": (
        weights(lambda flat: first(flat, lambda x: x.astype(np.float16))),
        "is float16 ",
    ),
    "NaN weights": (
        weights(lambda flat: {name: np.full_like(x, np.nan) for name, x in flat.items()}),
        "outputs are not finite",
    ),
    "another run's weights": (
        lambda d: (d / "model.safetensors").write_bytes(save({"a": np.zeros(3)})),
        "is missing from the weights or the model",
    ),
    "truncated": (raw(lambda content: content[:-5]), "model.safetensors is damaged"),
    "truncated header": (raw(lambda content: content[:50]), "model.safetensors is damaged"),
    "no weights at all": (raw(lambda content: b""), "model.safetensors is damaged"),
    "huge header": (header(2**63), "model.safetensors is damaged"),
    "empty header": (header(0), "model.safetensors is damaged"),
    "a tar": (raw(tar), "model.safetensors is damaged"),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_a_wrong_bundle(commands, bundle, clip, name):
    spoil, reason = BUNDLES[name]
    spoil(bundle)
    bundle_named = [] if name == "NaN weights" else [str(bundle)]
    words = [*bundle_named, reason]
    commands.refuse("ergl", "classify", clip, f"--bundle={bundle}", words=words)


@pytest.mark.parametrize("command", ["explain", "export", "pseudo_label.py"])
def test_the_other_readers_of_bundles(commands, bundle, clip, command):
    """All read by one function: what `classify` refuses, they refuse by the same words."""
    edited(model__channels="4")(bundle)
    arguments = [f"--bundle={bundle}", f"--out={commands.here / 'out' / 'a.npz'}"]
    if command == "pseudo_label.py":
        (commands.here / "my.csv").write_text("file,scene\nclip.wav,tram\n")
        arguments = [command, f"--manifest={commands.here / 'my.csv'}", *arguments]
    else:
        arguments = ["ergl", command, *([clip] if command == "explain" else []), *arguments]
    commands.refuse(*arguments, words=[str(bundle), "model.channels='4'"])


FLAGS = {
    "no command": ([], ["COMMAND"]),
    "unknown command": (["sing"], ["'sing'", "classify"]),
    "no recording": (["classify", "--bundle=B"], ["CLIP"]),
    "no bundle": (["classify", "CLIP"], ["--bundle"]),
    "empty bundle": (["classify", "CLIP", "--bundle="], ["--bundle", "the path is empty"]),
    "empty recording": (["classify", "", "--bundle=B"], ["a recording's name is empty"]),
    "empty out": (["explain", "CLIP", "--bundle=B", "--out="], ["--out", "the path is empty"]),
    "empty export": (["export", "--bundle=B", "--out="], ["--out", "the path is empty"]),
    "empty atlas": (["atlas", "B", "--out="], ["--out", "the path is empty"]),
    "out is a file": (["explain", "CLIP", "--bundle=B", "--out=CLIP"], ["--out", "clip.wav"]),
    "out below a file": (["explain", "CLIP", "--bundle=B", "--out=CLIP/x"], ["--out", "clip.wav"]),
    "method": (["explain", "CLIP", "--bundle=B", "--out=o", "--method=x"], ["--method", "'x'"]),
    "probability": (["classify", "CLIP", "--bundle=B", "--abstain-below=2"], ["--abstain-below"]),
    "two forms": (["classify", "CLIP", "--bundle=B", "--json", "--csv"], ["--csv", "--json"]),
    "another suffix": (["export", "--bundle=B", "--out=HERE/a.txt"], ["a.txt", ".stablehlo"]),
    "into the bundle": (["export", "--bundle=B", "--out=B"], ["is a bundle"]),
    "no run": (["atlas", "HERE/none", "--out=HERE/atlas"], ["none/bundle is not a bundle"]),
    "port": (["demo", "--bundle=B", "--port=many"], ["--port", "'many'"]),
    "unknown flag": (["doctor", "--nonsense"], ["--nonsense"]),
}


@pytest.mark.parametrize("name", FLAGS)
def test_wrong_flags(commands, bundle, clip, name):
    arguments, words = FLAGS[name]
    places = {"CLIP": clip, "B": bundle, "HERE": commands.here}

    def placed(argument: str) -> str:
        name, equals, value = argument.rpartition("=")
        head, *rest = value.split("/")
        return name + equals + "/".join([str(places.get(head, head)), *rest])

    commands.refuse("ergl", *map(placed, arguments), words=words)


def test_a_line_whatever_a_name_holds(commands, bundle):
    """No name of a file makes a second line, or writes to the terminal what it pleases."""
    path = commands.here / "a\nerror: all is well\x1b[2J.wav"
    path.write_text("no audio")
    line = commands.refuse("ergl", "classify", path, f"--bundle={bundle}", words=["no audio"[:0]])
    assert r"a\nerror: all is well\x1b[2J.wav: can't be decoded" in line


def test_a_folder_that_cannot_be_read_is_named(commands, bundle, monkeypatch):
    (commands.here / "clips" / "closed").mkdir(parents=True)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read all
    arguments = [commands.here / "clips", f"--bundle={bundle}"]
    outcome = commands.run("ergl", "classify", *arguments)
    assert outcome.status == 2
    assert outcome.err == [f"error: {commands.here}/clips/closed can't be read: Permission denied"]
