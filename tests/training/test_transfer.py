"""Initial weights from a bundle."""

import dataclasses
import shutil
from functools import partial

import jax
import numpy as np
import pytest

from ergl_jax import bundle as bundles
from ergl_jax import registry
from ergl_jax.audio import get_front_end
from ergl_jax.errors import InputError
from ergl_jax.labels import AUDIOSET
from ergl_jax.training import train, transfer
from ergl_jax.training.step import TrainState


@pytest.fixture
def source(tiny, tmp_path):
    """The tiny run's bundle as if it had been ported."""
    bundle = bundles.load(tiny.workdir / "bundle")
    bundle = dataclasses.replace(bundle, source="teacher.pth, MD5 123", licence="CC BY 4.0")
    bundle.save(tmp_path / "source")
    return tmp_path / "source"


def equal(one, other):
    return all(
        jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), b), one, other))
    )


def test_a_run_starts_from_it_and_records_the_source(tiny, tmp_path, source):
    """With almost no learning rate it ends there too, except for the statistics."""
    config = tiny.config(model__init_from=str(source), optimizer__learning_rate=1e-12, seed=5)
    results = train.train(config, tmp_path / "run")
    bundle, origin = bundles.load(tmp_path / "run" / "bundle"), bundles.load(source)
    mine, theirs = bundle.variables["params"], origin.variables["params"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-8),
        mine["encoder"],
        theirs["encoder"],
    )
    assert not equal(mine["events"], theirs["events"])
    assert not equal(bundle.variables["batch_stats"], origin.variables["batch_stats"])
    said = "encoder initialised from teacher.pth, MD5 123 (licence: CC BY 4.0)"
    assert bundle.source == results["source"] == said
    assert bundle.model.init_from == str(source)
    assert bundle.licence == bundles.load(tiny.workdir / "bundle").licence
    shutil.rmtree(source)  # a resumed run does not need it
    assert train.train(config, tmp_path / "run")["source"] == said


class TestStartPretrained:
    @pytest.fixture
    def state(self, source):
        blank = jax.tree.map(np.zeros_like, bundles.load(source).variables)
        return TrainState(np.int32(0), blank["params"], blank["batch_stats"], ())

    def test_takes_weights_and_statistics_of_the_encoder_alone(self, tiny, source, state):
        config = tiny.config(model__init_from=str(source)).model
        after, _ = transfer.start_pretrained(state, config, get_front_end("panns_16k"))
        theirs = bundles.load(source).variables
        for name in ("params", "batch_stats"):
            mine = getattr(after, name)
            assert mine.keys() == theirs[name].keys()
            assert equal(mine["encoder"], theirs[name]["encoder"])
            rest = jax.tree.leaves({key: x for key, x in mine.items() if key != "encoder"})
            assert rest and not any(x.any() for x in rest)
        assert after.step == 0

    @pytest.mark.parametrize(
        ("change", "front_end", "message"),
        [
            ({"architecture": "cnn10"}, "panns_16k", "model.encoder.architecture=cnn6, not cnn10"),
            ({"width_divisor": 4}, "panns_16k", "set model.encoder.width_divisor=32"),
            ({}, "paper", "set data.front_end=panns_16k"),
            ({}, "panns_16k:right", "'panns_16k', not 'panns_16k:right'"),
        ],
    )
    def test_another_encoder_or_front_end_is_refused(
        self, tiny, source, state, change, front_end, message
    ):
        fields = {f"model__encoder__{name}": value for name, value in change.items()}
        config = tiny.config(model__init_from=str(source), **fields).model
        with pytest.raises(InputError, match=f"init_from=.*source has .*{message}"):
            transfer.start_pretrained(state, config, get_front_end(front_end))


def test_weights_that_are_not_finite_are_refused(tiny, tmp_path, source):
    bundle = bundles.load(source)
    bundle.variables["params"]["encoder"]["ConvBlock_0"]["Conv_0"]["kernel"].flat[0] = np.nan
    bundle.save(source)
    with pytest.raises(InputError, match="source.*ConvBlock_0/Conv_0/kernel has NaN"):
        train.train(tiny.config(model__init_from=str(source)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_bundle_creates_no_workdir(tiny, tmp_path, source):
    shutil.rmtree(source)
    with pytest.raises(InputError, match="source is not a bundle"):
        train.train(tiny.config(model__init_from=str(source)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class TestPANN:
    """A whole PANN, from which `pann_scene` starts."""

    FIELDS = {"model__name": "pann_scene", "model__variant": "embedding"}

    @pytest.fixture
    def teacher(self, tiny, tmp_path):
        """A PANN with the tiny encoder; 527 events."""
        config = dataclasses.replace(tiny.config().model, name="pann")
        model = registry.build(config, num_scenes=0, num_events=len(AUDIOSET))
        init = jax.jit(partial(model.init, train=False))
        variables = init(jax.random.key(7), np.zeros((1, 64, 64)))
        bundle = dataclasses.replace(
            bundles.load(tiny.workdir / "bundle"),
            model=config,
            variables=jax.device_get(variables),
            scenes=(),
            events=AUDIOSET,
        )
        bundle.save(tmp_path / "teacher")
        return tmp_path / "teacher"

    def train(self, tiny, tmp_path, teacher, **fields):
        config = tiny.config(model__init_from=str(teacher), **self.FIELDS | fields)
        train.train(config, tmp_path / "run")
        run, origin = bundles.load(tmp_path / "run" / "bundle"), bundles.load(teacher)
        return run.variables, origin.variables

    def test_frozen_layers_stay_bit_for_bit(self, tiny, tmp_path, teacher):
        """Statistics too, and weight decay, which needs no gradient, does not change them."""
        mine, theirs = self.train(
            tiny,
            tmp_path,
            teacher,
            model__frozen=True,
            model__variant="tags",
            optimizer__weight_decay=0.5,
        )
        assert mine["params"].keys() == {"encoder", "fc1", "fc_audioset", "scene"}
        for name in ("encoder", "fc1", "fc_audioset"):
            assert equal(mine["params"][name], theirs["params"][name])
        assert equal(mine["batch_stats"]["encoder"], theirs["batch_stats"]["encoder"])

    def test_fine_tuning_starts_from_its_weights(self, tiny, tmp_path, teacher):
        mine, theirs = self.train(tiny, tmp_path, teacher, optimizer__learning_rate=1e-12)
        assert mine["params"].keys() == {"encoder", "fc1", "scene"}
        for name in ("encoder", "fc1"):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-8),
                mine["params"][name],
                theirs["params"][name],
            )
        assert not equal(mine["batch_stats"]["encoder"], theirs["batch_stats"]["encoder"])

    def test_a_bundle_without_a_pann_is_refused(self, tiny, tmp_path, source):
        config = tiny.config(model__init_from=str(source), **self.FIELDS)
        with pytest.raises(InputError, match="source has no fc1 of this size: give the bundle"):
            train.train(config, tmp_path / "run")
        with pytest.raises(InputError, match="config.model.init_from=.* is empty"):
            train.train(tiny.config(**self.FIELDS), tmp_path / "run")

    def test_a_pann_of_other_events_is_refused(self, tiny, teacher):
        config = tiny.config(model__init_from=str(teacher), **self.FIELDS).model
        params = dict(bundles.load(teacher).variables["params"])
        params["fc_audioset"] = {"kernel": np.zeros((16, 10)), "bias": np.zeros(10)}
        state = TrainState(np.int32(0), params, {}, ())
        with pytest.raises(InputError, match="has no fc_audioset of this size"):
            transfer.start_pretrained(state, config, get_front_end("panns_16k"))

    def test_a_system_without_this_encoder_is_refused(self, tiny, tmp_path, teacher):
        config = tiny.config(
            model__init_from=str(teacher),
            model__name="surrey",
            model__encoder__architecture="cnn14",
        )
        with pytest.raises(InputError, match="'surrey' has no encoder to initialise"):
            train.train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
