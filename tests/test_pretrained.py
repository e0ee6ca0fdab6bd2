"""The model that comes with the package: its names, the default, its credits, its place in a wheel.

Nothing here depends on how accurate it is, except the last tests, on real recordings.
"""

import dataclasses
import json
import os
import re
import shutil
import zipfile
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from programs import python

import ergl_jax
from ergl_jax import audio, bundle, errors, hub, known, pretrained
from ergl_jax.cli import main
from ergl_jax.datasets.esc import read_meta
from ergl_jax.datasets.tables import read_table
from ergl_jax.errors import InputError
from ergl_jax.inference.classify import Model
from ergl_jax.inference.embedding import output_and_features

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ERGL_SHARED_DATA", "not given"))
NAME = pretrained.DEFAULT
real_recordings = pytest.mark.skipif(not SHARED.is_dir(), reason="ERGL_SHARED_DATA is not set")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """In an empty directory, without the environment variable, and with warnings told anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(pretrained.VARIABLE, raising=False)
    errors.warn.cache_clear()


@pytest.fixture
def packed():
    return bundle.load(pretrained.HERE / NAME)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    return str(path)


def test_each_model_is_whole_small_and_described(packed):
    assert NAME in pretrained.names()
    for name in pretrained.names():
        about = pretrained.about(name)
        loaded = bundle.load(name)
        assert about["classes"] == list(loaded.scenes) and about["system"] == loaded.model.name
        files = sorted(path.name for path in (pretrained.HERE / name).iterdir())
        assert files == ["about.json", "config.json", "model.safetensors"]
        assert about["bytes"] <= 2_000_000 and about["licence"] and about["trained"]["command"]
    assert len(packed.scenes) == 10 and packed.model.name == "ergl"


def test_its_accuracy_is_that_of_the_results(load_script):
    about = pretrained.about(NAME)
    assert 0 < float(about["accuracy"].split()[0]) <= 100
    if figures := about["figures"]:
        script = load_script("data_prep/pack_model.py")
        path = ROOT / figures["file"]
        published = script.published_accuracy(path, figures["table"], figures["row"])
        assert about["accuracy"] == published


def test_a_name_is_a_model_unless_a_bundle_has_that_path(tiny, tmp_path, packed):
    (tmp_path / NAME).mkdir()  # of recordings, say
    assert bundle.load(NAME).scenes == ergl_jax.load(Path(NAME)).scenes == packed.scenes
    assert hub.bundle_path(NAME) == pretrained.HERE / NAME  # of flags such as --init-from
    scenes = bundle.load(tiny.workdir).scenes
    (tmp_path / NAME).rmdir()
    for source in (tiny.workdir / "bundle", tiny.workdir):
        shutil.copytree(source, tmp_path / NAME)
        assert bundle.load(NAME).scenes == scenes != packed.scenes
        shutil.rmtree(tmp_path / NAME)
    shutil.copytree(tiny.workdir / "bundle", tmp_path / NAME)
    (tmp_path / NAME / "model.safetensors").unlink()  # their own, though damaged
    with pytest.raises(InputError, match=f"{NAME} is not a bundle: it has no model.safetensors"):
        bundle.load(NAME)


def test_a_wrong_name_lists_the_models(clip, capsys):
    assert main(["classify", clip, "--bundle=esc11"]) == 2
    found = f"models that come with ergl_jax: {', '.join(pretrained.names())}"
    expected = f"error: esc11 is not a bundle: there is no such directory; {found}\n"
    assert capsys.readouterr().err == expected


def test_the_default_says_what_it_knows(clip, capsys, packed, tiny, tmp_path):
    shutil.copytree(tiny.workdir, tmp_path / NAME)  # not asked for
    assert main(["classify", "--json", clip]) == 0
    out, err = capsys.readouterr()
    assert set(json.loads(out)["scenes"]) == set(packed.scenes)
    warning = f"note: no model is given, so {NAME} is used, which covers only 10 sounds: "
    assert err == warning + ", ".join(packed.scenes) + "\n"
    errors.warn.cache_clear()
    assert ergl_jax.load().scenes == packed.scenes
    assert capsys.readouterr().err.startswith(warning)
    shutil.rmtree(tmp_path / NAME)
    assert main(["tag", clip, f"--bundle={NAME}"]) == 0
    assert capsys.readouterr().err == ""


def test_the_environment_names_the_default(tiny, clip, capsys, monkeypatch):
    monkeypatch.setenv(pretrained.VARIABLE, str(tiny.workdir))
    scenes = bundle.load(tiny.workdir).scenes
    assert ergl_jax.load().scenes == scenes
    assert main(["classify", "--json", clip]) == 0
    out, err = capsys.readouterr()
    assert set(json.loads(out)["scenes"]) == set(scenes) and err == ""
    assert main(["models"]) == 0
    assert capsys.readouterr().out.endswith(
        f"\nWithout --bundle: {tiny.workdir} (set by ERGL_MODEL)\n"
    )
    for wrong in (os.path.dirname(clip), "esc11"):
        monkeypatch.setenv(pretrained.VARIABLE, wrong)
        assert main(["models"]) == 0
        assert f"ERGL_MODEL={wrong}: no such model, and not a bundle" in capsys.readouterr().err
    assert main(["classify", clip]) == 2
    assert capsys.readouterr().err.startswith(
        f"error: {pretrained.VARIABLE}=esc11: esc11 is not a bundle: there is no such directory; "
    )


@pytest.mark.parametrize(
    "command", [["classify"], ["tag"], ["explain", "--out=explained"], ["export", "--out=exported"]]
)
@pytest.mark.slow
def test_no_command_needs_a_bundle(command, clip, capsys):
    recordings = [] if command[0] == "export" else [clip]
    assert main([*command, *recordings]) == 0
    assert capsys.readouterr().err.startswith("note: no model is given, so ")


def test_models_are_listed(capsys, packed):
    assert main(["models", "--json"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["name"] for each in listed] == pretrained.names()
    assert main(["models"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for about in listed:
        assert about == pretrained.about(about["name"])
        assert f"{about['name']} system {about['system']} " in text
        assert f" accuracy {about['accuracy']} % ({about['measured']}) " in text
        for part in (", ".join(about["classes"]), about["licence"]):
            assert part in text
    assert text.endswith(f" Without --bundle: {NAME}") and packed.licence in text


@pytest.mark.slow
def test_it_abstains_from_noise_and_silence(packed):
    """With a detector fitted to chords here: the packed model's own may change."""
    rate, rng = packed.front_end.sample_rate, np.random.default_rng(0)
    length = int(packed.clip_seconds * rate)
    time = np.arange(length) / rate

    def chord():
        pitches = 440 * 2 ** rng.uniform(-1, 1, 3)
        return sum(np.sin(2 * np.pi * x * time) for x in pitches).astype(np.float32) / 6

    @jax.jit
    def features(waveforms):
        log_mel = audio.log_mel(waveforms, packed.front_end)
        return output_and_features(packed.build(), packed.variables, log_mel)[1]

    chords, others = (np.stack([chord() for _ in range(24)]) for _ in range(2))
    training, validation = (np.asarray(features(x)) for x in (chords, others))
    model = Model(dataclasses.replace(packed, known=known.fit(training, validation)))
    classify = partial(model.classify, sample_rate=rate)
    assert np.mean([classify(chord()).known for _ in range(10)]) >= 0.7
    for unknown in (rng.normal(0, 0.1, length), np.zeros(length)):
        result = classify(unknown)
        assert not result.known and result.to_dict()["scene"] is None
        second = str(result).splitlines()[1]
        assert second.startswith("  None of the model's 10 classes: unlike the training clips (")


def test_it_is_in_the_wheel_with_its_notice_but_without_examples(tmp_path):
    pytest.importorskip("setuptools", minversion="70.1")  # older ones need the wheel package
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "examples", source / "examples")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ergl_jax", source / "ergl_jax", ignore=ignored)
    cache = source / "ergl_jax" / "pretrained" / "__pycache__"
    cache.mkdir()
    (cache / "x.pyc").touch()
    program = (
        "import os, sys; from setuptools import build_meta; os.chdir(sys.argv[1]);"
        "build_meta.build_wheel('..'); build_meta.build_sdist('..')"
    )
    python("-c", program, source, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    (sdist,) = tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    for path in (pretrained.HERE / NAME).iterdir():
        assert f"ergl_jax/pretrained/{NAME}/{path.name}" in names
    assert any(name.endswith("dist-info/licenses/NOTICE") for name in names)
    assert not any(name.endswith((".ogg", ".pyc")) for name in names)
    shutil.unpack_archive(sdist, tmp_path / "unpacked")
    assert len(list((tmp_path / "unpacked").glob("*/examples/*.ogg"))) == 3


def examples():
    """The rows of examples/README.md: cells by column."""
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (.*) \|$", text, re.M)
    header, *rows = ([cell.strip("` ") for cell in line.split(" | ")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_the_examples_are_small_listed_and_free():
    files = sorted((ROOT / "examples").glob("*.ogg"))
    assert sorted(row["file"] for row in examples()) == [path.name for path in files]
    assert sum(path.stat().st_size for path in files) < 300_000
    assert {row["licence"] for row in examples()} == {"CC0"}
    for row in examples():
        assert row["title"] and f"/people/{row['author']}/sounds/" in row["source"]


@real_recordings
def test_the_examples_are_clips_of_esc_10():
    clips = {
        Path(row.cells["filename"]).name: row.cells
        for row in read_table(SHARED / "esc10" / "meta.csv", ("filename", "source"))
    }
    for row in examples():
        clip = clips[row["clip of ESC-10"]]
        assert [row[x] for x in ("title", "author", "licence")] == [
            clip[x] for x in ("title", "author", "licence")
        ]
        assert row["source"].split("://")[1] == clip["source"].split("://www.")[1]
        copied = ROOT / "examples" / row["file"]
        assert copied.read_bytes() == (SHARED / "esc10" / clip["filename"]).read_bytes()


@real_recordings
def test_the_notice_credits_the_clips_it_was_trained_on(load_script):
    script = load_script("data_prep/pack_model.py")
    folds = pretrained.about(NAME)["trained"]["folds"]
    trained = [x for x in read_meta(SHARED / "esc10") if x.fold in folds]
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert notice == script.notice(NAME, trained)
    assert bundle.load(NAME).licence == script.licence(trained)
    assert len(trained) == pretrained.about(NAME)["trained"]["clips"]


@real_recordings
@pytest.mark.slow
def test_it_names_the_clips_of_esc_10_and_the_examples(packed):
    """As accurate on the fold it wasn't trained on as published; without one, on its own clips."""
    about = pretrained.about(NAME)
    recordings = read_meta(SHARED / "esc10")
    unseen = [x for x in recordings if x.fold not in about["trained"]["folds"]]
    model = Model(packed, keep=1)
    tested = unseen or [x for x in recordings if x.fold == "4"]
    found = model.classify([x.path for x in tested])
    correct = np.mean([x.scene == y.label for x, y in zip(found, tested, strict=True)])
    published = float(about["accuracy"].split()[0]) / 100
    assert correct >= published - 0.1
    if not unseen:
        assert correct > 0.9
    for name, label in (("dog", "dog_bark"), ("rooster", "rooster"), ("rain", "rain")):
        assert model.classify(ROOT / "examples" / f"{name}.ogg").scene == label


@real_recordings
@pytest.mark.slow
def test_it_is_accurate_and_abstains_from_scenes_of_cities(packed):
    """Street noise, airports and shopping malls are none of its ten sounds."""
    assert float(pretrained.about(NAME)["accuracy"].split()[0]) >= 80
    assert packed.known is not None
    found = Model(packed).classify(SHARED / "urban_clips")
    assert np.mean([result.known for result in found]) <= 0.4
