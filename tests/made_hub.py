"""Bundles on the stand-in of the Hub (fake_hub.py), for tests."""

import dataclasses

import jax
import numpy as np
from fake_hub import Repository

from ergl_jax.cli import main

ADDRESS = "hf://me/scenes"


def push(*arguments):
    return main(["push", *map(str, arguments)])


def files(hub, revision="main"):
    found = hub.repositories["me/scenes"]
    return found.commits[found.sha(revision)]


def put(hub, directory, **fields):
    """A repository with the files of a directory."""
    made = hub.repositories["me/scenes"] = Repository(**fields)
    made.commit({path.name: path.read_bytes() for path in directory.iterdir()})
    return made


def are_same(one, other):
    for field in dataclasses.fields(one):
        if field.name not in ("variables", "known"):
            assert getattr(one, field.name) == getattr(other, field.name), field.name
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)
    jax.tree.map(np.testing.assert_array_equal, one.known.arrays(), other.known.arrays())


def refused(capsys, *reasons):
    line = capsys.readouterr().err.removeprefix("error: ")
    assert line.count("\n") == 1 and "Traceback" not in line
    for reason in reasons:
        assert reason in line
    return line
