"""Damaged and edited bundles, and wrong flags, through `ergl`; see also tests/test_bundle.py."""

import json
import shutil
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

SCENES = [f"scene {i}" for i in range(10)]


def edited(**changes):
    """Changes fields of config.json, model__name those inside; ... removes one."""

    def spoil(directory):
        path = directory / "config.json"
        config = json.loads(path.read_text())
        for name, value in changes.items():
            *outer, last = name.split("__")
            group = config
            for key in outer:
                group = group[key]
            if value is ...:
                del group[last]
            else:
                group[last] = value
        path.write_text(json.dumps(config))

    return spoil


def config(content: bytes):
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


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (shutil.rmtree, "it has no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "it has no model.safetensors"),
        (config(b'{"format": 1, "mod'), "config.json"),
        (config(b"[" * 100_000), "config.json"),
        (config(b"null"), "config.json"),
        (edited(format=2), "install the version"),
        (edited(model__gcn=...), "config.json: model.gcn is missing"),
        (edited(model__channels="4"), "model.channels='4'"),
        (edited(model__gcn__layers=10**6), "model.gcn.layers=1000000"),
        (edited(clip_seconds=10**400), "clip_seconds=1"),
        (edited(temperature=float("nan")), "temperature=nan"),
        (edited(front_end__fmax=7000.0), "can't reproduce the front end"),
        (edited(scenes=SCENES), "is not the one that model.safetensors"),
        (edited(scenes=["tram"] * 10), "scenes is not a list of different names"),
        (edited(scenes=SCENES[:9]), "params/head/scene/bias is float32 (10,), the model"),
        (
            weights(lambda flat: flat | {"params/../../x": np.zeros(1)}),
            "weights have params/../../x",
        ),
        (weights(lambda flat: {k: np.float16(x) for k, x in flat.items()}), "is float16 "),
        (weights(lambda flat: {k: x * np.nan for k, x in flat.items()}), "outputs are not finite"),
        (raw(lambda content: save({"a": np.zeros(3)})), "the weights lack "),
        (raw(lambda content: content[:-5]), "model.safetensors is damaged"),
        (raw(lambda content: struct.pack("<Q", 2**63) + content[8:]), "is damaged"),
    ],
)
def test_a_wrong_bundle(commands, bundle, clip, spoil, reason):
    spoil(bundle)
    commands.refuse("ergl", "classify", clip, f"--bundle={bundle}", words=[reason])


def test_other_commands_refuse_the_same_bundles(commands, bundle, clip):
    edited(model__channels="4")(bundle)
    manifest = commands.here / "my.csv"
    manifest.write_text("file,scene\nclip.wav,tram\n")
    out = [f"--bundle={bundle}", f"--out={commands.here / 'out' / 'a.npz'}"]
    for command in (
        ["ergl", "explain", clip, *out],
        ["ergl", "export", *out],
        ["pseudo_label.py", f"--manifest={manifest}", *out],
    ):
        commands.refuse(*command, words=[str(bundle), "model.channels='4'"])


def test_wrong_flags(commands, bundle, clip):
    given, here = f"--bundle={bundle}", commands.here
    for arguments, words in (
        ([], ["COMMAND"]),
        (["sing"], ["'sing'", "classify"]),
        (["classify", given], ["CLIP"]),
        (["classify", clip], ["--bundle"]),
        (["classify", clip, "--bundle="], ["--bundle", "the path is empty"]),
        (["classify", "", given], ["a recording's name is empty"]),
        (["explain", clip, given, "--out="], ["--out", "the path is empty"]),
        (["explain", clip, given, f"--out={clip}/x"], ["--out", "clip.wav"]),
        (["explain", clip, given, "--out=o", "--method=x"], ["--method", "'x'"]),
        (["export", given, f"--out={here / 'a.txt'}"], ["a.txt", ".stablehlo"]),
        (["export", given, f"--out={bundle}"], ["outside of a bundle"]),
        (["atlas", here / "none", f"--out={here / 'atlas'}"], ["none/bundle is not a bundle"]),
        (["demo", given, "--port=many"], ["--port", "'many'"]),
        (["doctor", "--nonsense"], ["--nonsense"]),
    ):
        commands.refuse("ergl", *arguments, words=words)


def test_errors_are_one_printable_line_for_any_file_name(commands, bundle):
    path = commands.here / "a\nerror: all is well\x1b[2J.wav"
    path.write_text("no audio")
    line = commands.refuse("ergl", "classify", path, f"--bundle={bundle}", words=[])
    assert r"a\nerror: all is well\x1b[2J.wav can't be read" in line
