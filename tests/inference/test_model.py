"""What `ergl_jax.load` returns: names, folders, explanations, embeddings; models without scenes."""

import dataclasses
import pydoc

import jax
import numpy as np
import pytest
import soundfile
from made_systems import apply

import ergl_jax
from ergl_jax.audio import expand, log_mel
from ergl_jax.cli import main
from ergl_jax.config import ModelConfig
from ergl_jax.errors import InputError
from ergl_jax.inference.explain import Explainer

RATE = 16000  # of the tiny run's front end
CLIP = 2 * RATE


@pytest.fixture(scope="module")
def model(tiny):
    return ergl_jax.load(tiny.workdir / "bundle")


def untrained(bundle, name, **fields):
    """A bundle of another system, with random weights."""
    config = ModelConfig.from_saved(bundle.model.to_dict() | {"name": name})
    bundle = dataclasses.replace(bundle, model=config, **fields)
    module, x = bundle.build(), np.zeros((1, *bundle.clip_shape), np.float32)
    variables = jax.jit(lambda: module.init(jax.random.key(0), x, train=False))()
    return dataclasses.replace(bundle, variables=jax.tree.map(np.array, dict(variables)))


@pytest.fixture(scope="module")
def pann(model):
    return ergl_jax.Model(untrained(model.bundle, "pann", scenes=()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three recordings of one, two and four windows, one of them deeper."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "deeper").mkdir()
    rng = np.random.default_rng(0)
    for name, seconds in (("b.wav", 1), ("a.flac", 3.5), ("deeper/c.wav", 7.5)):
        soundfile.write(folder / name, rng.normal(0, 0.1, round(seconds * RATE)), RATE)
    return folder


def windows(path):
    """The windows (W, L) of a recording, the last of which ends with it."""
    samples, _ = soundfile.read(path, dtype="float32")
    samples = np.pad(samples, (0, max(0, CLIP - len(samples))))
    starts = [*range(0, len(samples) - CLIP + 1, CLIP)]
    if len(samples) > starts[-1] + CLIP:
        starts.append(len(samples) - CLIP)
    return np.array([samples[start : start + CLIP] for start in starts])


def test_it_says_what_it_is(model, pann):
    bundle = model.bundle
    assert (model.scenes, model.events) == (bundle.scenes, bundle.events)
    for text in ("ergl", "10 scenes", "4 events", "2 s", "panns_16k", "16000 Hz", bundle.licence):
        assert text in repr(model)
    assert "pann: 0 scenes, 4 events" in repr(pann)
    shown = pydoc.plain(pydoc.render_doc(ergl_jax))
    for name in ("load(", "classify(", "explain(", "embed(", "scenes, events"):
        assert name in shown


def test_a_folder_is_classified_as_its_recordings_are(model, folder):
    paths = [str(folder / name) for name in ("a.flac", "b.wav", "deeper/c.wav")]
    assert expand(folder) == paths
    found = model.classify(folder)
    assert [result.name for result in found] == paths
    assert [len(result.timeline) for result in found] == [2, 1, 4]
    assert found == model.classify(paths) == [each for _, each in model.classify_each(folder)]


def test_folders_without_recordings_are_refused(model, tmp_path):
    for run in (model.classify, model.embed):
        with pytest.raises(InputError, match="contains no audio file"):
            run(tmp_path)
        with pytest.raises(InputError, match="can't be read"):
            run([tmp_path])


def test_explain_is_the_explainers(model, folder):
    path = folder / "a.flac"
    found, expected = model.explain(path), Explainer(model)(path)
    assert found.to_dict() == expected.to_dict()
    samples, _ = soundfile.read(path, dtype="float32")
    integrated = model.explain(samples, sample_rate=RATE, method="integrated")
    assert integrated.method == "integrated" and integrated.scene == found.scene
    other = ergl_jax.Model(untrained(model.bundle, "cnn", events=()))
    with pytest.raises(InputError, match="explanations need an ERGL.*'cnn'"):
        other.explain(path)
    with pytest.raises(InputError, match="can't be read"):
        model.explain(folder)


@pytest.mark.parametrize("name", ["model", "pann"])
def test_embeddings_are_means_over_windows(request, name, folder):
    model, paths = request.getfixturevalue(name), expand(folder)
    vectors = model.embed(folder)
    assert vectors.dtype == np.float32 and np.ptp(vectors, axis=0).max() > 1e-3
    each = [windows(path) for path in paths]
    features = log_mel(np.concatenate(each), model.bundle.front_end)
    output = apply(model.module, model.variables, features)
    seen = output.embedding if name == "pann" else output.graph.nodes_out
    seen = np.split(np.reshape(seen, (7, -1)), np.cumsum([len(x) for x in each])[:-1])
    expected = [x.mean(axis=0) for x in seen]
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.embed(paths[::-1]), vectors[::-1], rtol=1e-4, atol=1e-5)
    samples, _ = soundfile.read(paths[0], dtype="float32")
    alone = model.embed(samples, sample_rate=RATE)
    np.testing.assert_allclose(alone, vectors[0], rtol=1e-4, atol=1e-5)
    assert len(model.embed([])) == 0


def test_a_pann_embeds_and_does_not_classify(pann, folder, tmp_path, capsys):
    assert pann.embed(folder / "b.wav").shape == pann.variables["params"]["fc1"]["bias"].shape
    for run in (pann.classify, pann.explain, lambda path: list(pann.classify_each([path]))):
        with pytest.raises(InputError, match="no scenes|need an ERGL"):
            run(folder / "b.wav")
    pann.bundle.save(tmp_path / "bundle")
    assert main(["classify", f"--bundle={tmp_path / 'bundle'}", "--csv", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "has no scenes, only events" in err


def test_what_is_unusual_about_a_recording_is_a_warning(model):
    with pytest.warns(UserWarning, match="samples: silence"):
        model.embed(np.zeros(CLIP, np.float32), sample_rate=RATE)


def test_damaged_weights_embed_nothing(model, folder):
    variables = jax.tree.map(np.copy, dict(model.bundle.variables))
    variables["params"]["events"] = jax.tree.map(
        lambda x: np.full_like(x, np.nan), variables["params"]["events"]
    )
    broken = ergl_jax.Model(dataclasses.replace(model.bundle, variables=variables))
    with pytest.raises(InputError, match="outputs are not finite: its weights are damaged"):
        broken.embed(folder)
