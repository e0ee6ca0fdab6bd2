"""Damaged and edited bundles, and wrong flags, through `ergl`; see also tests/test_bundle.py."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file


def edit(bundle, **fields):
    """Changes fields of the model in config.json."""
    config = json.loads((bundle / "config.json").read_text())
    config["model"] |= fields
    (bundle / "config.json").write_text(json.dumps(config))


def spoil_weights(bundle):
    path = bundle / "model.safetensors"
    save_file({name: x * np.nan for name, x in load_file(path).items()}, path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (shutil.rmtree, "there is no such directory"),
        (lambda bundle: (bundle / "config.json").write_text('{"format": 1, "mod'), "config.json"),
        (lambda bundle: edit(bundle, gcn={"layers": 10**6, "gate": "sigmoid"}), "layers=1000000"),
        (spoil_weights, "known/mean is not finite"),
        (lambda bundle: save_file({"a": np.zeros(3)}, bundle / "model.safetensors"), "a is float"),
    ],
)
def test_a_wrong_bundle(commands, bundle, clip, spoil, reason):
    spoil(bundle)
    commands.refuse("ergl", "classify", clip, f"--bundle={bundle}", words=[reason])


def test_other_commands_refuse_the_same_bundles(commands, bundle, clip):
    edit(bundle, channels="4")
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
        (["classify", clip, "--bundle="], ["--bundle", "the path is empty"]),
        (["classify", "", given], ["a recording's name is empty"]),
        (["explain", clip, given, "--out="], ["--out", "the path is empty"]),
        (["explain", clip, given, f"--out={clip}/x"], ["--out", "clip.wav"]),
        (["explain", clip, given, "--out=o", "--method=x"], ["--method", "'x'"]),
        (["explain", clip, "b.wav", given, "--out=o"], ["b.wav", "ergl explain --help"]),
        (["explain", here, given, "--out=o"], [str(here), "give one recording"]),
        (["export", given, f"--out={here / 'a.txt'}"], ["a.txt", ".stablehlo"]),
        (["export", given, f"--out={bundle}"], ["outside of a bundle"]),
        (["atlas", here / "none", f"--out={here / 'atlas'}"], ["none/bundle is not a bundle"]),
        (["demo", given, "--port=many"], ["--port", "'many'"]),
        (["demo", given, "--port=65536"], ["--port", "1 to 65535"]),
        (["doctor", "--nonsense"], ["--nonsense"]),
    ):
        commands.refuse("ergl", *arguments, words=words)


def test_errors_are_one_printable_line_for_any_file_name(commands, bundle):
    path = commands.here / "a\nerror: all is well\x1b[2J.wav"
    path.write_text("no audio")
    line = commands.refuse("ergl", "classify", path, f"--bundle={bundle}", words=[])
    assert r"a\nerror: all is well\x1b[2J.wav can't be read" in line
