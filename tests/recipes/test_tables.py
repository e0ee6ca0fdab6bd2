"""Tables of runs: which run, what goes on, what the table says. Training itself is stood in."""

import csv
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import tables as configs
from ergl_jax import registry
from ergl_jax.audio import get_front_end
from ergl_jax.errors import InputError, InputErrorOnAScreen
from ergl_jax.recipes import stages, tables
from ergl_jax.training import macs, train

ROOT = Path(__file__).resolve().parents[2]


def asked(table="mel", **fields):
    config = configs.get_config(table)
    with config.unlocked():
        config.update({"source": "synthetic"} | fields)
    return config


class Trainings:
    """In `train.train`'s place: notes what it was called with, and leaves results."""

    def __init__(self):
        self.calls, self.refused, self.error = [], {}, InputError

    def __call__(self, config, workdir):
        name = workdir.parent.name
        if name in self.refused:
            raise self.error(self.refused[name])
        self.calls.append((name, config.seed))
        workdir.mkdir(parents=True)
        (workdir / "config.json").write_text(config.to_json())
        results = {
            "test": self.accuracy and {"class_mean_accuracy": self.accuracy(name, config.seed)},
            "parameters": 1000 + len(name),
            "gmac_per_clip": 0.012345,
            "training_seconds": 60.0 * (1 + config.seed),
        }
        (workdir / "results.json").write_text(json.dumps(results))

    @staticmethod
    def accuracy(name, seed):
        return (len(name) + seed**2) / 100


@pytest.fixture
def trainings(monkeypatch):
    stand_in = Trainings()
    monkeypatch.setattr(train, "train", stand_in)
    return stand_in


def table(workdir):
    with open(workdir / "table.csv", newline="", encoding="utf-8") as file:
        return {line["row"]: line for line in csv.DictReader(file)}


def run(workdir, seeds=(0, 1, 2), shard="0/1", **fields):
    return tables.run(configs.rows(asked(**fields)), workdir, seeds=seeds, shard=shard)


def test_every_row_has_each_seed_and_a_line(trainings, tmp_path):
    text = run(tmp_path)
    assert trainings.calls == list(itertools.product(("ergl_without_mel", "ergl"), (0, 1, 2)))
    found = table(tmp_path)
    assert list(found) == ["ergl_without_mel", "ergl"]
    accuracies = 100 * np.array([trainings.accuracy("ergl", seed) for seed in (0, 1, 2)])
    assert found["ergl"] == {
        "row": "ergl",
        "parameters": "1004",
        "GMAC a clip": "0.0123",
        "accuracy %": f"{accuracies.mean():.2f} ± {np.std(accuracies, ddof=1):.2f}",
        "seeds": "3 of 3",
        "published %": "78.08 ± 2.01",
        "training minutes": "2.0",
        "remarks": "",
    }
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == text
    head, line, *rows = text.splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (head, *rows)]
    assert tuple(cells[0]) == tables.COLUMNS and set(line) == {"|", "-"}
    assert cells[2] == list(found["ergl"].values())


def test_one_seed_has_no_deviation(trainings, tmp_path):
    run(tmp_path, seeds=(3,))
    assert table(tmp_path)["ergl"]["accuracy %"] == "13.00"


def test_without_test_clips_there_is_no_accuracy(trainings, tmp_path):
    trainings.accuracy = None
    run(tmp_path, seeds=(0, 1))
    found = table(tmp_path)["ergl"]
    assert found["accuracy %"] == "" and found["seeds"] == "2 of 2"


def test_a_second_call_trains_what_is_missing(trainings, tmp_path):
    run(tmp_path, seeds=(0,))
    run(tmp_path, seeds=(0, 1))
    assert trainings.calls == [(n, s) for s in (0, 1) for n in ("ergl_without_mel", "ergl")]
    (tmp_path / "ergl" / "seed1" / "results.json").unlink()  # as if it had been killed
    (tmp_path / "ergl" / "seed1" / "config.json").unlink()
    (tmp_path / "ergl" / "seed1").rmdir()
    run(tmp_path, seeds=(0, 1))
    assert trainings.calls[4:] == [("ergl", 1)]


@pytest.mark.parametrize("of", [1, 2, 3, 6, 8])
def test_shards_share_all_runs(trainings, tmp_path, of):
    for mine in range(of):
        run(tmp_path, shard=f"{mine}/{of}")
    assert sorted(trainings.calls) == sorted(
        itertools.product(("ergl_without_mel", "ergl"), (0, 1, 2))
    )
    assert table(tmp_path)["ergl"]["seeds"] == "3 of 3"


def test_a_shard_shows_what_others_have_not_done_yet(trainings, tmp_path):
    run(tmp_path, shard="1/2")
    assert [line["seeds"] for line in table(tmp_path).values()] == ["1 of 3", "2 of 3"]


def test_a_row_that_fails_is_named_and_the_others_go_on(trainings, tmp_path, capsys):
    trainings.refused = {"ergl_without_mel": "no clips | at all"}
    with pytest.raises(InputError, match="ergl_without_mel: not trained, see above"):
        run(tmp_path, seeds=(0, 1))
    assert trainings.calls == [("ergl", 0), ("ergl", 1)]
    told = capsys.readouterr().err.splitlines()
    assert told == [f"error: row ergl_without_mel, seed {s}: no clips | at all" for s in (0, 1)]
    line = table(tmp_path)["ergl_without_mel"]
    assert line["remarks"] == "no clips | at all"
    assert line["parameters"] == line["accuracy %"] == "" and line["seeds"] == "0 of 2"
    assert "no clips \\| at all" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_a_panns_fields_reach_its_rows_alone():
    overrides = ("model.init_from=PANN", "model.variant=tags")
    rows = configs.rows(asked("3", rows=("pann_fixed", "surrey", "mltf"), overrides=overrides))
    found = [(row.config.model.init_from, row.config.model.variant) for row in rows]
    assert found == [("PANN", "tags"), ("", ""), ("", "svm")]


def test_a_directory_of_other_settings_is_refused_before_anything_is_trained(trainings, tmp_path):
    run(tmp_path, seeds=(0,), rows=("ergl",))
    before = (tmp_path / "table.csv").read_text()
    with pytest.raises(InputError, match="ergl/seed0 belongs .* train.epochs was 16, is 3"):
        run(tmp_path, seeds=(0,), overrides=("train.epochs=3",))
    assert trainings.calls == [("ergl", 0)] and (tmp_path / "table.csv").read_text() == before


def test_the_table_of_what_is_done_is_written_after_each_run(trainings, tmp_path, monkeypatch):
    """Whatever ends the process in the next one."""
    calls, train_run = [], train.train

    def stopped(config, workdir):
        calls.append(config.seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train_run(config, workdir)

    monkeypatch.setattr(train, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, rows=("ergl",), seeds=(0, 1))
    assert table(tmp_path)["ergl"]["seeds"] == "1 of 2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "can't be read: .*; delete it, and the same command writes it again"),
        ("[" * 100_000, "can't be read"),
        ("[]", "is damaged, delete it, .*: what it holds is no object"),
        ('{"parameters": 1, "gmac_per_clip": 1}', "is damaged, .*: training_seconds is missing"),
        (
            '{"parameters": 1, "gmac_per_clip": 1, "training_seconds": 1, "test": {}}',
            "is damaged, .*: test.class_mean_accuracy is missing",
        ),
    ],
    ids=["cut", "nested", "a list", "without a field", "without its score"],
)
def test_damaged_results_are_named(trainings, tmp_path, text, message):
    run(tmp_path, rows=("ergl",), seeds=(0,))
    (tmp_path / "ergl" / "seed0" / "results.json").write_text(text)
    with pytest.raises(InputError, match=f"ergl/seed0/results.json {message}"):
        run(tmp_path, rows=("ergl",), seeds=(0,))


def test_a_corpus_that_is_not_there_is_told_once(trainings, tmp_path):
    """On its screen; no row could be trained."""
    trainings.refused = {"ergl_without_mel": "get it\nthere"}
    trainings.error = InputErrorOnAScreen
    with pytest.raises(InputErrorOnAScreen, match="get it\nthere"):
        run(tmp_path / "runs")
    assert not trainings.calls and not (tmp_path / "runs").exists()


def test_stages_of_other_seeds_share_no_seed():
    """Else the ensembles of two rows would have members in common."""
    (row,) = configs.rows(asked("3", rows=("nnf_cnnens",)))
    before, seeds = row.config.to_json(), []
    for seed in range(5):
        config = tables._config(row, seed)
        seeds += [config.seed, *(each.seed for _, each in stages.configs(config))]
    assert len(set(seeds)) == len(seeds) == 5 * 7
    assert row.config.to_json() == before and tables._config(row, 0).to_json() == before


def test_size_needs_no_data():
    """Against the arrays themselves."""
    (row,) = configs.rows(asked("3", rows=("surrey",)))
    parameters, gmac = tables.size(row.config, 10)
    front_end = get_front_end(row.config.data.front_end)
    clip = np.zeros((1, front_end.num_frames(5.0), front_end.n_mels), np.float32)
    model = registry.build(row.config.model, num_scenes=10, num_events=0)
    variables = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(clip)
    assert parameters == sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert gmac == macs.count(model, variables, clip.shape[1:]) / 1e9 > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": "2/2"}, "shard='2/2' is not like 0/4"),
        ({"shard": "-1/2"}, "shard='-1/2'"),
        ({"shard": "half"}, "shard='half'"),
        ({"seeds": ()}, r"seeds=\(\): name some"),
        ({"seeds": (1, 1)}, r"seeds=\(1, 1\)"),
        ({"seeds": (-1,)}, r"seeds=\(-1,\)"),
        ({"seeds": ("a",)}, r"seeds=\('a',\)"),
        ({"rows": (25,)}, "rows: '25' is not one of"),
        ({"rows": ("n7", "n7")}, r"rows=\('n7', 'n7'\): name each once"),
        ({"rows": ("n7x",)}, "rows: 'n7x' is not one of"),
        ({"overrides": ("seed=1",)}, "overrides: 'seed=1': a table's are its seeds"),
        ({"overrides": (1,)}, "overrides: '1' sets no field"),
        ({"rows": ("nonsense",)}, "rows: 'nonsense' is not one of: pann_fixed"),
        ({"overrides": ("train.nonsense=1",)}, "'train.nonsense=1' sets no field"),
        ({"overrides": ("train.epochs=many",)}, "'train.epochs=many' sets no field"),
        ({"overrides": ("train.epochs=2.5",)}, "'train.epochs=2.5' sets no field"),
        ({"overrides": ("model.mel=0",)}, "'model.mel=0' sets no field"),
        ({"overrides": ("train=1",)}, "'train=1' sets no field"),
        ({"overrides": ("epochs",)}, "'epochs' sets no field"),
        ({"source": "nonsense"}, "source='nonsense' is not one of: tut2018"),
        ({"source": "tut2018,ergl"}, "source='tut2018,ergl' is not one of: tut2018"),
        ({"recipe": "nonsense"}, "recipe='nonsense': those of source=synthetic are ergl"),
        ({"recipe": "native"}, "recipe='native': those of source=synthetic are ergl"),
        (
            {"recipe": "nonsense", "source": "tut2018"},
            "recipe='nonsense': those of source=tut2018 are native, ergl",
        ),
    ],
)
def test_a_mistake_is_told_and_leaves_nothing(trainings, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "runs", **options)
    assert not trainings.calls and not (tmp_path / "runs").exists()


class TestCommand:
    """run.py, with nothing stood in."""

    OVERRIDES = (
        "data.clip_seconds=2.0",
        "data.num_events=3",
        "data.train_clips_per_scene=1",
        "data.test_clips_per_scene=1",
        "model.encoder.architecture=cnn6",
        "model.encoder.width_divisor=32",
        "model.channels=4",
        "model.gcn.layers=1",
        "train.batch_size=10",
        "train.epochs=1",
        "optimizer.warmup_epochs=0.0",
        "augment.roll=False",
        "augment.time_masks=0",
        "augment.mel_masks=0",
    )

    def call(self, directory, *more):
        overrides = (*self.OVERRIDES, f"data.data_dir={directory}/data")
        return subprocess.run(
            [
                sys.executable,
                "run.py",
                "--config=configs/tables.py:main",
                "--config.source=synthetic",
                "--config.rows=('pann_fixed','cnn')",
                f"--config.overrides={overrides!r}",
                f"--workdir={directory}/runs",
                *more,
            ],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    def test_trains_what_can_be_and_tells_of_the_rest(self, tmp_path):
        """A PANN's row has nothing to begin with."""
        result = self.call(tmp_path)
        assert result.returncode == 2 and "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert "row pann_fixed, seed 0: model.name=pann_scene is a pretrained PANN" in lines[0]
        assert lines[1].startswith("error: pann_fixed: not trained, see above")
        found, results = table(tmp_path / "runs"), tmp_path / "runs" / "cnn" / "seed0/results.json"
        results = json.loads(results.read_text())
        assert found["pann_fixed"]["seeds"] == "0 of 1" and found["cnn"]["seeds"] == "1 of 1"
        accuracy = 100 * results["test"]["class_mean_accuracy"]
        assert found["cnn"]["accuracy %"] == f"{accuracy:.2f}"
        assert found["cnn"]["parameters"] == str(results["parameters"])
        assert found["cnn"]["GMAC a clip"] == f"{results['gmac_per_clip']:.3g}"

    def test_evaluates_no_table(self, tmp_path):
        result = self.call(tmp_path, "--mode=evaluate")
        assert result.returncode == 2 and not list(tmp_path.iterdir())
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: --mode=evaluate is for a run")


class TestRows:
    """configs/tables.py."""

    def config(self, name, table="3", **fields):
        (row,) = configs.rows(asked(table, rows=(name,), **fields))
        return row.config

    @pytest.mark.parametrize("table", configs.TABLES)
    def test_are_all_there(self, table):
        rows = configs.rows(asked(table, source="tut2018"))
        assert tuple(row.name for row in rows) == configs.TABLES[table]

    def test_of_tables_1_and_2_change_one_number(self):
        assert self.config("n400").data.num_events == 400
        assert self.config("n7").data.num_events == 7
        assert self.config("U8").model.gcn.layers == 8
        assert self.config("n25").to_dict() != self.config("ergl").to_dict()
        ergl = self.config("ergl", source="tut2018").to_dict()
        assert self.config("n25", source="tut2018").to_dict() == ergl
        assert self.config("U2", source="tut2018").to_dict() == ergl

    def test_have_the_published_numbers(self):
        """Tables 1, 2 and 3 give the same for ERGL as it is."""
        published = {row.name: row.published for t in "123" for row in configs.rows(asked(t))}
        assert published["n25"] == published["U2"] == published["ergl"] == "78.08 ± 2.01"
        assert published["n10"] == "74.75 ± 2.61" and published["U8"] == "74.00 ± 1.91"

    def test_take_overrides_of_any_type(self):
        overrides = ("train.epochs=3", "data.data_dir=/a=b", "model.mel=False", "augment.roll=True")
        config = self.config("cnn", overrides=(*overrides, "optimizer.learning_rate=1"))
        assert config.train.epochs == 3 and config.data.data_dir == "/a=b"
        assert config.model.mel is False and config.augment.roll is True
        assert config.optimizer.learning_rate == 1.0
        assert isinstance(config.optimizer.learning_rate, float)

    def test_keep_what_makes_them_what_they_are(self):
        config = self.config("ergl_without_mel", overrides=("model.mel=True",))
        assert config.model.mel is False

    def test_begin_with_a_pann_where_they_are_one(self):
        overrides = ("model.init_from=/pann",)
        begun = {
            row.name: row.config.model.init_from
            for row in configs.rows(asked("3", source="tut2018", overrides=overrides))
        }
        assert begun.pop("pann_fixed") == begun.pop("pann_finetuned") == "/pann"
        assert set(begun.values()) == {""}

    @pytest.mark.parametrize("source", ["tut2018", "synthetic", "soundscapes"])
    @pytest.mark.parametrize("recipe", ["", "ergl"])
    def test_of_a_pann_are_as_it_is(self, source, recipe):
        config = self.config("pann_finetuned", source=source, recipe=recipe)
        assert config.data.front_end == "panns_16k"
        encoder = config.model.encoder
        assert (encoder.architecture, encoder.width_divisor) == ("cnn14", 1)

    def test_a_table_must_be_known(self):
        config = asked()
        with config.unlocked():
            config.table = "5"
        with pytest.raises(InputError, match="table='5' is not one of: 1, 2, 3, 4, mel, main"):
            configs.rows(config)

    def test_native_and_ergl_recipes_differ(self):
        native, ours = (
            self.config("surrey", source="tut2018", recipe=recipe) for recipe in ("native", "ergl")
        )
        assert native.data.front_end == "kong" and ours.data.front_end == "paper"
        assert self.config("surrey", source="tut2018").to_dict() == native.to_dict()
