"""Training from a bundle's encoder."""

import dataclasses
import shutil

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
    """The tiny run's bundle as if it had been ported: a source of its own, statistics moved."""
    bundle = bundles.load(tiny.workdir / "bundle")
    bundle = dataclasses.replace(bundle, source="teacher.pth, MD5 123", licence="CC BY 4.0")
    bundle.save(tmp_path / "source")
    return tmp_path / "source"


def equal(one, other):
    return all(
        jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), b), one, other))
    )


def test_a_run_starts_there_and_says_so(tiny, tmp_path, source):
    """At next to no learning rate it also ends there, but for the statistics."""
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
    said = "encoder begun with teacher.pth, MD5 123 (licence: CC BY 4.0)"
    assert bundle.source == results["source"] == said
    assert bundle.model.init_from == str(source)
    assert bundle.licence == bundles.load(tiny.workdir / "bundle").licence


def test_from_chance_is_the_default(tiny):
    assert tiny.config().model.init_from == "" == tiny.results["source"]
    assert bundles.load(tiny.workdir / "bundle").source == ""


class TestStartEncoder:
    """Of the state alone."""

    def state(self):
        encoder = bundles.load(self.path).variables
        blank = jax.tree.map(np.zeros_like, encoder)
        return TrainState(np.int32(0), blank["params"], blank["batch_stats"], ())

    @pytest.fixture(autouse=True)
    def _keep(self, source):
        self.path = source

    def test_takes_weights_and_statistics_of_the_encoder_alone(self, tiny):
        config = tiny.config(model__init_from=str(self.path)).model
        state, _ = transfer.start_pretrained(self.state(), config, get_front_end("panns_16k"))
        theirs = bundles.load(self.path).variables
        for name in ("params", "batch_stats"):
            mine = getattr(state, name)
            assert mine.keys() == theirs[name].keys()
            assert equal(mine["encoder"], theirs[name]["encoder"])
            rest = [
                x for key, tree in mine.items() if key != "encoder" for x in jax.tree.leaves(tree)
            ]
            assert rest and not any(x.any() for x in rest)
        assert state.step == 0

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"model__encoder__architecture": "cnn10"}, "architecture=cnn6, not cnn10: set --con"),
            (
                {"model__encoder__width_divisor": 4},
                "width_divisor=32, not 4: set --config.model.en",
            ),
        ],
    )
    def test_another_encoder_is_refused(self, tiny, change, message):
        config = tiny.config(model__init_from=str(self.path), **change).model
        with pytest.raises(InputError, match=f"init_from=.*source has model.encoder.{message}"):
            transfer.start_pretrained(self.state(), config, get_front_end("panns_16k"))

    def test_another_front_end_is_refused(self, tiny):
        config = tiny.config(model__init_from=str(self.path)).model
        with pytest.raises(InputError, match="'panns_16k', not 'paper': set --config.data.front_e"):
            transfer.start_pretrained(self.state(), config, get_front_end("paper"))


def test_no_bundle_takes_no_workdir(tiny, tmp_path, source):
    shutil.rmtree(source)
    with pytest.raises(InputError, match="source is not a bundle"):
        train.train(tiny.config(model__init_from=str(source)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_goes_on_needs_the_bundle_no_more(tiny, tmp_path, source):
    config = tiny.config(model__init_from=str(source))
    first = train.train(config, tmp_path / "run")
    shutil.rmtree(source)
    again = train.train(config, tmp_path / "run")
    assert again["source"] == first["source"] and "encoder begun with" in first["source"]


class TestPANN:
    """A whole PANN, which `pann_scene` begins with."""

    FIELDS = {"model__name": "pann_scene", "model__variant": "embedding"}

    @pytest.fixture
    def teacher(self, tiny, tmp_path):
        """A PANN with the tiny encoder; 527 events."""
        config = dataclasses.replace(tiny.config().model, name="pann")
        model = registry.build(config, num_scenes=0, num_events=len(AUDIOSET))
        variables = model.init(jax.random.key(7), np.zeros((1, 64, 64)), train=False)
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

    def test_frozen_stays_as_it_is_to_the_last_bit(self, tiny, tmp_path, teacher):
        """Statistics too; and the decay, which is felt without a gradient, leaves it alone."""
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

    def test_fine_tuned_begins_there(self, tiny, tmp_path, teacher):
        mine, theirs = self.train(tiny, tmp_path, teacher, optimizer__learning_rate=1e-12)
        assert mine["params"].keys() == {"encoder", "fc1", "scene"}
        for name in ("encoder", "fc1"):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-8),
                mine["params"][name],
                theirs["params"][name],
            )
        assert not equal(mine["batch_stats"]["encoder"], theirs["batch_stats"]["encoder"])

    def test_another_bundle_will_not_do(self, tiny, tmp_path, source):
        config = tiny.config(model__init_from=str(source), **self.FIELDS)
        with pytest.raises(InputError, match="source has no fc1 of this size: give the bundle"):
            train.train(config, tmp_path / "run")
        with pytest.raises(InputError, match="config.model.init_from=.* is empty"):
            train.train(tiny.config(**self.FIELDS), tmp_path / "run")

    def test_a_pann_of_other_events_will_not_do(self, tiny, teacher):
        config = tiny.config(model__init_from=str(teacher), **self.FIELDS).model
        params = dict(bundles.load(teacher).variables["params"])
        params["fc_audioset"] = {"kernel": np.zeros((16, 10)), "bias": np.zeros(10)}
        state = TrainState(np.int32(0), params, {}, ())
        with pytest.raises(InputError, match="has no fc_audioset of this size"):
            transfer.start_pretrained(state, config, get_front_end("panns_16k"))

    def test_a_system_without_encoder_starts_from_none(self, tiny, tmp_path, teacher):
        """And is told so, not that another encoder would be right."""
        config = tiny.config(
            model__init_from=str(teacher),
            model__name="surrey",
            model__encoder__architecture="cnn14",
        )
        with pytest.raises(InputError, match="'surrey' has no encoder to initialise"):
            train.train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
