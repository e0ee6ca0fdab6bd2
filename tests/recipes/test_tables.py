"""Tables of runs: which runs train, what the table holds. Training itself is replaced."""

import csv
import itertools
import json

import numpy as np
import pytest

from configs import tables as configs
from ergl_jax.errors import InputError, MultilineInputError
from ergl_jax.locks import InUse
from ergl_jax.recipes import stages, tables

NAMES = ("ergl_without_mel", "ergl")  # the rows of the table "mel"


def rows(of="mel", **fields):
    config = configs.get_config(of)
    with config.unlocked():
        config.update({"source": "synthetic"} | fields)
    return configs.rows(config)


def run(workdir, seeds=(0, 1, 2), shard="0/1", of="mel", **fields):
    asked = rows(of, seeds=seeds, shard=shard, **fields)
    return tables.run(asked, workdir, seeds=seeds, shard=shard)


def table(workdir):
    with open(workdir / "table.csv", newline="", encoding="utf-8") as file:
        return {line["row"]: line for line in csv.DictReader(file)}


def accuracy(name, seed):
    return (len(name) + seed**2) / 100


@pytest.fixture
def trained(monkeypatch):
    """(row, seed) of each training, which only writes results; `fail` maps rows to errors."""
    calls: list = []

    def train(config, workdir):
        name = workdir.parent.name
        if name in train.fail:
            raise train.fail[name]
        calls.append((name, config.seed))
        assert (workdir / "lock.json").exists()
        (workdir / "config.json").write_text(json.dumps(config.to_dict()))
        results = {
            "test": train.tests and {"class_mean_accuracy": accuracy(name, config.seed)},
            "parameters": 1000 + len(name),
            "gmac_per_clip": 0.012345,
            "training_seconds": 60.0 * (1 + config.seed),
        }
        (workdir / "results.json").write_text(json.dumps(results))

    train.fail, train.tests, train.calls = {}, True, calls
    monkeypatch.setattr(stages, "train", train)
    return train


def test_every_row_trains_each_seed_and_has_a_line(trained, tmp_path):
    text = run(tmp_path)
    assert trained.calls == list(itertools.product(NAMES, (0, 1, 2)))
    found = table(tmp_path)
    assert tuple(found) == NAMES
    accuracies = 100 * np.array([accuracy("ergl", seed) for seed in (0, 1, 2)])
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
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()]
    assert tuple(cells[0]) == tables.COLUMNS and cells[3] == list(found["ergl"].values())


def test_one_seed_has_no_deviation_and_no_test_clips_no_accuracy(trained, tmp_path):
    run(tmp_path / "one", seeds=(3,))
    assert table(tmp_path / "one")["ergl"]["accuracy %"] == "13.00"
    trained.tests = None
    run(tmp_path / "untested", seeds=(0, 1))
    assert table(tmp_path / "untested")["ergl"]["accuracy %"] == ""


def test_shards_share_the_runs_and_a_second_call_trains_the_missing_ones(trained, tmp_path):
    run(tmp_path, shard="1/2")
    assert [line["seeds"] for line in table(tmp_path).values()] == ["1 of 3", "2 of 3"]
    run(tmp_path, shard="0/2")
    assert sorted(trained.calls) == sorted(itertools.product(NAMES, (0, 1, 2)))
    (tmp_path / "ergl" / "seed1" / "results.json").unlink()
    (tmp_path / "ergl" / "seed1" / "config.json").unlink()
    (tmp_path / "ergl" / "seed1").rmdir()
    run(tmp_path)
    assert trained.calls[6:] == [("ergl", 1)]


def test_a_failed_row_is_reported_and_the_others_continue(trained, tmp_path, capsys):
    """One whose training fails, and one whose configuration is incomplete: without its PANN."""
    trained.fail = {"cnn": InputError("no clips | at all")}
    with pytest.raises(InputError, match="pann_fixed, cnn: not trained, see above"):
        run(tmp_path, seeds=(0,), rows=("cnn", "pann_fixed", "ergl"))
    assert trained.calls == [("ergl", 0)]
    pann, cnn = capsys.readouterr().err.splitlines()
    assert pann.startswith("error: row pann_fixed: ") and "model.init_from" in pann
    assert cnn == "error: row cnn, seed 0: no clips | at all"
    line = table(tmp_path)["cnn"]
    assert line["remarks"].endswith("; no clips | at all") and line["seeds"] == "0 of 1"
    assert "no clips \\| at all" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_a_wrong_override_is_reported_once(trained, tmp_path, capsys):
    with pytest.raises(InputError, match="^config.train.batch_size=0 must be at least 1$"):
        run(tmp_path / "runs", of="3", overrides=("train.batch_size=0",))
    assert not capsys.readouterr().err and not trained.calls and not (tmp_path / "runs").exists()
    names = ("pann_fixed", "pann_finetuned", "cnn", "ergl")
    with pytest.raises(InputError, match="pann_fixed, pann_finetuned: not trained"):
        run(tmp_path / "runs", rows=names)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: row pann_fixed, pann_finetuned: config.model.init_from=''")
    assert len(trained.calls) == 2 * 3


def test_a_run_that_another_process_trains_ends_the_table(trained, tmp_path):
    trained.fail = {"ergl_without_mel": InUse("in use")}
    with pytest.raises(InUse):
        run(tmp_path / "runs")
    assert not trained.calls


def test_a_missing_corpus_ends_the_table_at_once(trained, tmp_path):
    trained.fail = {"ergl_without_mel": MultilineInputError("get it\nthere")}
    with pytest.raises(MultilineInputError, match="get it\nthere"):
        run(tmp_path / "runs")
    assert not trained.calls and not (tmp_path / "runs").exists()


def test_the_table_is_written_after_each_run(trained, tmp_path):
    trained.fail = {"ergl": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert [line["seeds"] for line in table(tmp_path).values()] == ["3 of 3", "0 of 3"]


def test_other_settings_and_damaged_results_are_errors_before_anything_is_trained(
    trained, tmp_path
):
    run(tmp_path, seeds=(0,), rows=("ergl",))
    with pytest.raises(InputError, match="ergl/seed0 belongs .* train.epochs was 16, is 3"):
        run(tmp_path, seeds=(1, 0), rows=("ergl",), overrides=("train.epochs=3",))
    results = tmp_path / "ergl" / "seed0" / "results.json"
    for text in ("{", '{"parameters": 1, "gmac_per_clip": 1}'):
        results.write_text(text)
        with pytest.raises(InputError, match="ergl/seed0/results.json.*delete it, and the same"):
            run(tmp_path, seeds=(1, 0), rows=("ergl",))
    assert trained.calls == [("ergl", 0)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shard": "2/2"}, "shard='2/2' is not like 0/4"),
        ({"seeds": (1, 1)}, r"seeds=\(1, 1\) must be different whole numbers"),
        ({"seeds": (-1,)}, r"seeds=\(-1,\)"),
        ({"rows": ("n7", "n7")}, r"rows=\('n7', 'n7'\) names a row twice"),
        ({"rows": ("n7x",)}, "rows: 'n7x' is not one of: pann_fixed"),
        ({"overrides": ("seed=1",)}, "overrides: 'seed=1': use --config.seeds"),
        ({"overrides": ("train.nonsense=1",)}, "'train.nonsense=1' sets no field"),
        ({"overrides": ("model.mel=0",)}, "'model.mel=0' sets no field"),
        ({"source": "nonsense"}, "source='nonsense' is not one of: tut2018"),
        ({"recipe": "native"}, "recipe='native' is not one of: ergl"),
        ({"table": "5"}, "table='5' is not one of: 1, 2, 3, 4, mel, main"),
    ],
)
def test_a_wrong_field_is_an_error(fields, message):
    with pytest.raises(InputError, match=message):
        rows(**fields)


class TestRows:
    """configs/tables.py."""

    @pytest.mark.parametrize("table", configs.TABLES)
    def test_are_those_of_the_table(self, table):
        assert tuple(row.name for row in rows(table, source="tut2018")) == configs.TABLES[table]

    def test_of_tables_1_and_2_change_one_number(self):
        n7, u8, n25, u2, ergl = rows(source="tut2018", rows=("n7", "U8", "n25", "U2", "ergl"))
        assert n7.config.data.num_events == 7 and u8.config.model.gcn.layers == 8
        assert n25.config == u2.config == ergl.config
        assert n25.published == u2.published == ergl.published == "78.08 ± 2.01"

    def test_take_overrides_but_keep_their_own_fields(self):
        overrides = ("train.epochs=3", "data.data_dir=/a=b", "model.mel=True")
        overrides += ("optimizer.learning_rate=1", "model.init_from=PANN", "model.variant=tags")
        names = ("ergl_without_mel", "mltf", "pann_fixed")
        ergl, mltf, pann = (x.config for x in rows(rows=names, overrides=overrides))
        assert ergl.train.epochs == 3 and ergl.data.data_dir == "/a=b"
        assert ergl.model.mel is False and type(ergl.optimizer.learning_rate) is float
        found = [(x.model.init_from, x.model.variant) for x in (ergl, mltf, pann)]
        assert found == [("", ""), ("", "svm"), ("PANN", "tags")]

    def test_have_recipes_of_their_own_or_ergls(self):
        native, ours = (
            rows(source="tut2018", rows=("surrey", "pann_fixed"), recipe=recipe)
            for recipe in ("", "ergl")
        )
        assert [row.config.data.front_end for row in native] == ["kong", "panns_16k"]
        assert [row.config.data.front_end for row in ours] == ["paper", "panns_16k"]

    def test_of_other_seeds_share_no_seed(self):
        """Else the ensembles of two seeds would have members in common."""
        config, seeds = rows("3", rows=("nnf_cnnens",))[0].config, []
        for seed in range(5):
            each = stages.Config.from_dict(config.to_dict() | {"seed": seed})
            seeds += [seed, *(stage.seed for _, stage in stages.configs(each))]
        assert len(set(seeds)) == len(seeds) == 5 * 7
