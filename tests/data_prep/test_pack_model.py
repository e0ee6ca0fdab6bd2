"""pack_model.py: from a run to a model in a package, and the credits of its training clips."""

import csv
import json
import re
import shutil
from itertools import cycle

import numpy as np
import pytest

from ergl_jax import bundle
from ergl_jax.files import read_json

HEADER = ("filename", "label", "fold", "title", "source", "author", "licence")
FREESOUND = "http://www.freesound.org/people/{}/sounds/{}/"


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("data_prep/pack_model.py")


@pytest.fixture
def pack(script, tiny, tmp_path, capsys):
    """Packs a copy of the tiny run, as if trained on fold 1; returns status, root and output."""
    clips = sum(n for split, n in tiny.results["clips"].items() if split != "test")
    run, root, corpus = (tmp_path / name for name in ("run", "checkout", "corpus"))
    shutil.copytree(tiny.workdir, run)
    config = read_json(run / "config.json")
    config["data"]["test_folds"] = [4]
    (run / "config.json").write_text(json.dumps(config))
    root.mkdir()
    corpus.mkdir()

    def pack(*flags, rows=()):
        """`rows` of the meta table come first, then enough of fold 1, and one of fold 4."""
        rows = [*rows]
        for i, licence in zip(range(len(rows), clips), cycle(script.LICENCES), strict=False):
            source = FREESOUND.format("Ann", i)
            rows.append((f"{i}.ogg", "rain", 1, f"title {i}", source, "Ann", licence))
        rows.append(("last.ogg", "rain", 4, "t", FREESOUND.format("Tester", 4), "Tester", "CC0"))
        with open(corpus / "meta.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([HEADER, *rows])
        given = [f"--run={run}", f"--recordings={corpus}", f"--root={root}", "--name=box"]
        status = script.main([*given, "--command=python run.py", *flags])
        return status, root, "".join(capsys.readouterr())

    return pack


def test_a_run_is_packed_with_its_own_accuracy(pack, tiny):
    status, root, _ = pack()
    made = root / "ergl_jax" / "pretrained" / "box"
    assert status == 0
    names = ["about.json", "config.json", "model.safetensors"]
    assert sorted(path.name for path in made.iterdir()) == names
    packed, before = bundle.load(made), bundle.load(tiny.workdir)
    assert packed.licence.startswith("CC0 1.0, CC BY 3.0, Sampling+ 1.0 (")
    for name, x in before.variables["params"]["head"]["scene"].items():
        np.testing.assert_array_equal(packed.variables["params"]["head"]["scene"][name], x)
    about = read_json(made / "about.json")
    tested, clips = tiny.results["test"]["class_mean_accuracy"], tiny.results["clips"]
    assert about["accuracy"] == f"{100 * tested:.1f}" and about["figures"] is None
    assert about["measured"] == f"{clips['test']} test clips"
    assert about["trained"]["folds"] == ["1"] and about["trained"]["command"] == "python run.py"
    assert pack()[0] == 0  # replaces it


def test_the_accuracy_of_figures(pack, tmp_path):
    tables = [
        {
            "caption": "a",
            "header": ["model", "mean ± std, %"],
            "rows": [["ERGL", "1"], ["CNN", "2"]],
        },
        {"caption": "b", "header": ["model", "seed 0"], "rows": [["ERGL", "3"]]},
    ]
    (tmp_path / "checkout" / "f.json").write_text(json.dumps({"tables": tables}))
    flags = ("--figures=f.json", "--table=a")
    assert pack(*flags, "--row=CNN")[0] == 0
    about = read_json(tmp_path / "checkout/ergl_jax/pretrained/box/about.json")
    assert (about["accuracy"], about["measured"]) == ("2", "a")
    assert about["figures"] == {"file": "f.json", "table": "a", "row": "CNN"}
    for wrong in ((*flags, "--row=RNN"), ("--figures=f.json", "--table=b", "--row=ERGL")):
        status, _, output = pack(*wrong)
        assert status == 2 and re.search(r"f.json has no table '.' with a row '.*' and a", output)
    for some in (flags, ("--row=CNN",)):
        status, _, output = pack(*some)
        assert status == 2 and "--figures, --table and --row" in output


def test_the_notice_has_each_author_and_title_once_by_licence(pack):
    rows = [
        ("a.ogg", "rain", 1, "storm", FREESOUND.format("J%20Doe", 12), "J Doe", "CC-BY"),
        ("b.ogg", "rain", 1, "storm", FREESOUND.format("J%20Doe", 12), "J Doe", "CC-BY"),
        ("c.ogg", "dog_bark", 1, "bark", "https://example.org/c", "J Doe", "CC-BY"),
    ]
    status, root, _ = pack(rows=rows)
    assert status == 0
    notice = (root / "NOTICE").read_text(encoding="utf-8")
    assert "\n  J Doe: bark (https://example.org/c); storm (12)\n" in notice
    assert "Tester" not in notice and notice.count("\n  Ann: ") == 3
    by = notice.index("\nCC BY 3.0, https://")
    assert notice.index("\nCC0 1.0, ") < by < notice.index("J Doe") < notice.index("\nSampling+")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a.ogg", "rain", 1, "t", "s", "", "CC0"), "a.ogg has no author or no title"),
        (("a.ogg", "rain", 1, "t", "s", "A", "GPL"), "a.ogg has licence 'GPL'; known are CC"),
        (("a.ogg", "rain", 4, "t", "s", "A", "CC0"), "clips, but folds 1 of --recordings"),
    ],
)
def test_wrong_corpora_are_refused(pack, row, message):
    status, root, output = pack(rows=[row])
    assert status == 2 and message in output and not (root / "NOTICE").exists()


def test_a_large_model_is_refused(pack, script, monkeypatch):
    monkeypatch.setattr(script, "MAX_BYTES", 1000)
    status, root, output = pack()
    assert status == 2 and "bytes; at most 1000 are packed" in output
    assert not list((root / "ergl_jax/pretrained/box").iterdir())
