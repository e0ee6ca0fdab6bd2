"""Whatever bytes a file holds, reading it gives a value or an InputError, and nothing else."""

import contextlib
import csv
import io
import json
import shutil
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ergl_jax import bundle as bundles
from ergl_jax import schema
from ergl_jax.datasets.events import read_list
from ergl_jax.datasets.manifest import read_manifest, read_recordings
from ergl_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
HURRIED = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
HEAD = ["file", "scene", "split"]
# Cells that mean something somewhere, among any text.
CELL = st.one_of(
    st.sampled_from(
        [*HEAD, "fold", "group", "event:Dog", "train", "test", "1", "0.5", "nan", "", "."]
    ),
    st.sampled_from(["..", "/", "a/..", "\0", "é", '"', "\ufeff", " ", "a\nb", "1e400", "_1"]),
    st.text(max_size=8),
)


def table(rows: list[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


@HURRIED
@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(st.lists(CELL, max_size=6), max_size=5).map(
            lambda rows: table(rows).encode("utf-8", "replace")
        ),
        st.lists(st.lists(CELL, min_size=3, max_size=3), max_size=5).map(
            lambda rows: table([HEAD, *rows]).encode("utf-8", "replace")
        ),
    ),
    st.sampled_from([(), ("1",)]),
)
@example(b"file,scene,split\n.,a,train\n", ())
@example(b"file,scene,split\na\0b,a,train\n", ())
def test_a_manifest(tmp_path, content, folds):
    path = tmp_path / "my.csv"
    path.write_bytes(content)
    np.savez(
        tmp_path / "labels.npz",
        clip=np.array(["a", ".", ".."]),
        events=np.array(["Dog"]),
        probabilities=np.ones((3, 1)),
    )
    for read in (
        lambda: read_manifest(path, test_folds=folds),
        lambda: read_manifest(path, events_file=tmp_path / "labels.npz"),
        lambda: read_recordings(path),
    ):
        with contextlib.suppress(InputError):
            assert read()


NAME = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=9
).filter(lambda name: name == name.strip() and not name.startswith("\ufeff"))


@HURRIED
@given(
    st.lists(
        st.tuples(NAME, NAME, st.sampled_from(["train", "validation", "test"]), st.floats(0, 1)),
        min_size=1,
        max_size=8,
    )
)
@example([("0", "\uf900", "train", 0.0)])  # which Unicode's form NFC replaces
def test_what_is_written_is_read(tmp_path, rows):
    """Files of numbered names, so that none is another's by another spelling."""
    files = [f"{i}/{name.replace('/', '')}" for i, (name, *_) in enumerate(rows)]
    path = tmp_path / "my.csv"
    content = [[*HEAD, "event:Dog"]]
    content += [[file, *row[1:]] for file, row in zip(files, rows, strict=True)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(content)
    corpus = read_manifest(path)
    assert corpus.events == ("Dog",)
    for clip, file, (_, scene, split, value) in zip(corpus.clips, files, rows, strict=True):
        assert (clip.name, clip.split) == (file.strip(), split)
        assert corpus.scenes[clip.scene] == unicodedata.normalize("NFC", scene)
        assert clip.events == np.float32([value])


def good_npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, clip=np.array(["a"]), events=np.array(["Dog"]), probabilities=np.ones((1, 1)))
    return out.getvalue()


def changes(content: bytes):
    """The same bytes with some changed, cut out or put in."""
    change = st.tuples(st.integers(0, len(content)), st.integers(0, 9), st.binary(max_size=9))

    def apply(edits):
        changed = content
        for at, gone, put in edits:
            changed = changed[:at] + put + changed[at + gone :]
        return changed

    return st.lists(change, max_size=4).map(apply)


ARRAYS = st.one_of(
    st.sampled_from([np.float64(0.5), np.ones((1, 1)), np.array(["a"]), np.array([b"a"])]),
    st.sampled_from([np.zeros(0), np.zeros((0, 0)), np.array([None]), np.array("2020", "M8[Y]")]),
    st.sampled_from(
        [np.zeros(1, "i4,f4"), np.array([[1j]]), np.array([["a"]]), np.array(["a", "a"])]
    ),
)


def npz(arrays: dict) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


@HURRIED
@given(
    st.one_of(
        st.binary(max_size=200),
        changes(good_npz()),
        st.dictionaries(
            st.sampled_from(["clip", "events", "probabilities", "tags", "x"]), ARRAYS, max_size=5
        ).map(npz),
    )
)
def test_labels(tmp_path, content):
    (tmp_path / "my.csv").write_text("file,scene,split\na.wav,tram,train\n")
    (tmp_path / "labels.npz").write_bytes(content)
    with contextlib.suppress(InputError):
        corpus = read_manifest(tmp_path / "my.csv", events_file=tmp_path / "labels.npz")
        assert corpus.clips[0].events.shape == (len(corpus.events),)


@HURRIED
@given(
    st.one_of(
        st.binary(max_size=99), st.text(max_size=99).map(lambda x: x.encode("utf-8", "replace"))
    )
)
def test_a_list_of_events(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    with contextlib.suppress(InputError):
        names = read_list(str(tmp_path / "list.txt"))
        assert names and len(set(names)) == len(names)


JSON = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.floats(), st.text(max_size=5)),
        st.integers(-(10**12), 10**12),
        st.sampled_from([10**400, "ergl", "cnn", "pann", "cnn6", "float32", "zero", "\ud800"]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value, path=()):
    """The path of every field of nested dicts."""
    for name, inside in value.items():
        yield (*path, name)
        if isinstance(inside, dict):
            yield from places(inside, (*path, name))


@pytest.fixture(scope="module")
def spoilt(tiny, tmp_path_factory):
    return shutil.copytree(tiny.workdir / "bundle", tmp_path_factory.mktemp("spoilt") / "bundle")


@HURRIED
@given(st.data())
def test_a_bundles_config(tiny, spoilt, data):
    content = (tiny.workdir / "bundle" / "config.json").read_bytes()
    if data.draw(st.booleans()):
        config = json.loads(content)
        for *outer, last in data.draw(st.lists(st.sampled_from(list(places(config))), max_size=3)):
            place = config
            for name in outer:
                place = place[name] if isinstance(place, dict) and name in place else {}
            if isinstance(place, dict):
                place[last] = data.draw(JSON)
        content = json.dumps(config).encode()
    else:
        content = data.draw(st.one_of(st.binary(max_size=50), changes(content)))
    (spoilt / "config.json").write_bytes(content)
    with contextlib.suppress(InputError):
        assert bundles.load(spoilt).scenes


@HURRIED
@given(JSON, JSON)
def test_fields_are_checked_whatever_they_hold(example, found):
    kinds = (
        schema.schema_of(example) if isinstance(example, dict) else {"a": int, "b": {"c": tuple}}
    )
    kinds = {name: kind for name, kind in kinds.items() if kind is not type(None)}
    with contextlib.suppress(InputError, KeyError):  # KeyError: a kind that none of ours has
        schema.check(found, kinds)
        assert found.keys() == kinds.keys()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ml_collections, and odd literals
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@settings(HURRIED, max_examples=60)
@given(
    st.sampled_from(
        ["train.epochs", "data.test_folds", "model.mel", "data.events", "optimizer", "seed"]
    ),
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
        st.sampled_from(
            ["(", "()", "(1,", "None", "True", "1e9", "nan", "[]", "{}", "-0", "0x1", "1_0"]
        ),
    ),
)
def test_overrides(field, value):
    """A flag is read, or ends in one line and status 2."""
    import run

    argv = ["run.py", f"--config={ROOT / 'configs' / 'test.py'}", f"--config.{field}={value}"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as err:
        patch.setattr(sys, "argv", argv)
        try:
            assert run.parse_flags(argv) == argv[:1]
        except SystemExit as stop:
            assert stop.code == 2 and len(err.getvalue().splitlines()) == 1
        finally:
            for name in list(flags.FLAGS):
                if name.startswith("config."):
                    delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
