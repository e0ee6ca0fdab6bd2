"""Tables of runs: which run, what goes on, what the table says. Training itself is stood in."""

import csv
import itertools
import json

import numpy as np
import pytest

from configs import tables as configs
from ergl_jax.errors import InputError
from ergl_jax.training import loop, tables


def asked(table="mel", **fields):
    config = configs.get_config(table)
    with config.unlocked():
        config.update({"source": "synthetic"} | fields)
    return config


class Trainings:
    """In `loop.train`'s place: notes what it was called with, and leaves results."""

    def __init__(self):
        self.calls, self.refused = [], {}

    def __call__(self, config, workdir):
        name = workdir.parent.name
        if name in self.refused:
            raise InputError(self.refused[name])
        self.calls.append((name, config.seed))
        workdir.mkdir(parents=True)
        (workdir / "config.json").write_text(config.to_json())
        results = {
            "test": {"class_mean_accuracy": self.accuracy(name, config.seed)},
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
    monkeypatch.setattr(loop, "train", stand_in)
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


def test_a_directory_of_other_settings_is_refused(trainings, tmp_path):
    run(tmp_path, seeds=(0,))
    with pytest.raises(InputError, match="train.epochs was 16, is 3"):
        run(tmp_path, seeds=(0,), overrides=("train.epochs=3",))


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
        ({"rows": ("nonsense",)}, "rows: 'nonsense' is not one of: pann_fixed"),
        ({"overrides": ("train.nonsense=1",)}, "'train.nonsense=1' sets no field"),
        ({"overrides": ("train.epochs=many",)}, "'train.epochs=many' sets no field"),
        ({"overrides": ("train.epochs=2.5",)}, "'train.epochs=2.5' sets no field"),
        ({"overrides": ("model.mel=0",)}, "'model.mel=0' sets no field"),
        ({"overrides": ("train=1",)}, "'train=1' sets no field"),
        ({"overrides": ("epochs",)}, "'epochs' sets no field"),
        ({"source": "nonsense"}, "choose one of tut2018"),
        ({"recipe": "nonsense", "rows": ("mtl",)}, "the recipes are native and ergl"),
        ({"recipe": "native", "rows": ("mtl",)}, "for .* ergl alone"),
    ],
)
def test_a_mistake_is_told_and_leaves_nothing(trainings, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "runs", **options)
    assert not trainings.calls and not (tmp_path / "runs").exists()


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

    def test_native_and_ergl_recipes_differ(self):
        native, ours = (
            self.config("surrey", source="tut2018", recipe=recipe) for recipe in ("native", "ergl")
        )
        assert native.data.front_end == "kong" and ours.data.front_end == "paper"
        assert self.config("surrey", source="tut2018").to_dict() == native.to_dict()
