"""soundata_manifest.py on a small tree in the layout of each data set."""

import json
import warnings

import pytest
from made_public_data import TREES, tau

from configs import tau2022
from ergl_jax.config import Config
from ergl_jax.datasets.labelled import read_listed
from ergl_jax.datasets.manifest import read_manifest
from ergl_jax.errors import warn
from ergl_jax.training import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its imports
    try:
        from soundata import core
    except ModuleNotFoundError:
        core = None
needs_soundata = pytest.mark.skipif(core is None, reason="needs soundata")


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("data_prep/soundata_manifest.py")


@pytest.fixture
def indexed(tmp_path, monkeypatch):
    """A function that makes a data set's tree and index; returns its root and expected rows."""

    def indexed(name):
        root = tmp_path / name
        clips, expected = TREES[name](root)
        keys = {clip: x if isinstance(x, dict) else {"audio": x} for clip, x in clips.items()}
        index = {
            clip: {key: [path, "no checksum"] for key, path in each.items()}
            for clip, each in keys.items()
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"version": "1", "clips": index}))
        monkeypatch.setattr(core.Index, "get_path", lambda _: str(path))
        return root, expected

    return indexed


@needs_soundata
def test_every_data_set_of_soundata_is_known(script):
    import soundata

    assert {*script.LAYOUTS, *script.OTHERS} <= {*soundata.list_datasets()}
    assert {*script.LAYOUTS} == {*TREES, "tau2019uas", "tau2020uas_mobile", "tau2022uas_mobile"}


@needs_soundata
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # soundata's reader of FSD50K
@pytest.mark.parametrize("name", TREES)
def test_a_data_set(script, indexed, tmp_path, name, capsys):
    """The manifest, as it is read again: scenes, splits or folds, groups, events, licence."""
    root, expected = indexed(name)
    out = tmp_path / "out" / "my.csv"
    assert script.main([f"--dataset={name}", f"--root={root}", f"--out={out}"]) == 0
    assert f"{len(expected)} clips" in capsys.readouterr().out
    header, first = out.read_text().splitlines()[:2]
    folds = [part for _, part, _, _ in expected]
    if "fold" in header.split(","):
        corpus = read_manifest(out, test_folds=folds[-1:])
        parts = ["train"] * (len(folds) - 1) + ["test"]
    elif "split" in header.split(","):
        corpus, parts = read_manifest(out), folds
    else:
        corpus, parts = read_manifest(out, split="train"), ["train"] * len(folds)
        assert folds == [None] * len(folds)
    assert [clip.split for clip in corpus.clips] == parts
    assert [corpus.scenes[clip.scene] for clip in corpus.clips] == [row[0] for row in expected]
    groups = [
        clip.name if row[2] is None else row[2]
        for clip, row in zip(corpus.clips, expected, strict=True)
    ]
    assert [clip.group for clip in corpus.clips] == groups
    for clip, row in zip(corpus.clips, expected, strict=True):
        assert dict(zip(corpus.events, clip.events.tolist(), strict=True)) == {
            event: row[3].get(event, 0) for event in corpus.events
        }
        assert len(clip.load(16000, "mean", [])) == 1600
    assert set().union(*(row[3] for row in expected)) == set(corpus.events)
    assert corpus.licence and all(
        part in first or ";" in corpus.licence for part in [corpus.licence]
    )
    assert len(read_listed(out)[0].clips) == len(expected)  # as `ergl train` reads it


@pytest.mark.parametrize("year", ["2019", "2020", "2022"])
def test_tau_urban_acoustic_scenes(script, tmp_path, year, capsys):
    """Devices that only test clips have are unseen; --root may be the folder or its parent."""
    mobile = year != "2019"
    folder, _ = tau(tmp_path, year, mobile=mobile)
    name = f"tau{year}uas{'_mobile' * mobile}"
    for root in (tmp_path, folder):
        assert script.main([f"--dataset={name}", f"--root={root}", f"--out={root}/my.csv"]) == 0
        assert "1 clips of" in capsys.readouterr().out
        corpus = read_manifest(root / "my.csv")
        assert corpus.scenes == ("airport", "bus") and "non-commercial" in corpus.licence
        assert f"TAU Urban Acoustic Scenes {year}" in corpus.licence
        groups = {clip.group: clip.split for clip in corpus.clips}
        assert groups == {
            f"lyon-{n}": "test" if n % 10 == 2 else "train" for n in (0, 1, 2, 10, 11, 12)
        }
        assert len(corpus.clips) == 20
        for clip in corpus.clips:
            device = clip.name.removesuffix(".wav").rpartition("-")[2]
            seen = {"device": device, "devices": "unseen" if device == "s4" else "seen"}
            assert clip.by == (seen if mobile else {})


def test_a_subset_of_the_training_clips(script, tmp_path, capsys):
    folder, names = tau(tmp_path, "2022")
    out = tmp_path / "my.csv"
    command = ["--dataset=tau2022uas_mobile", f"--root={tmp_path}", f"--out={out}"]
    assert script.main([*command, "--subset=5"]) == 2
    error = capsys.readouterr().err
    assert "split5.csv" in error and "https://" in error and not out.exists()
    (tmp_path / "split5.csv").write_text("\n".join(["filename", *names[:2]]))
    for subset in ("5", tmp_path / "split5.csv"):
        assert script.main([*command, f"--subset={subset}"]) == 0
        corpus = read_manifest(out)
        train_files = [clip.name for clip in corpus.clips if clip.split == "train"]
        assert train_files == [str((folder / name).resolve()) for name in names[:2]]
        assert sum(clip.split == "test" for clip in corpus.clips) == 8
        unseen = {clip.by["device"] for clip in corpus.clips if clip.by["devices"] == "unseen"}
        assert unseen == {"c", "s4"}  # the two clips are of devices a and b
    (tmp_path / "split5.csv").write_text("filename\naudio/bus-lyon-12-0-a.wav")
    assert script.main([*command, "--subset=5"]) == 2
    assert "fold1_evaluate.csv, line" in capsys.readouterr().err
    (tmp_path / "split5.csv").write_text("filename\naudio/moon.wav")
    assert script.main([*command, "--subset=5"]) == 2
    assert f"{tmp_path}/split5.csv, line 2: audio/moon.wav" in capsys.readouterr().err
    esc = ["--dataset=esc50", f"--root={tmp_path}", f"--out={out}", "--subset=5"]
    assert script.main(esc) == 2
    assert "not of esc50" in capsys.readouterr().err


def test_groups_that_the_data_set_divides_are_noted(script, tmp_path, capsys):
    warn.cache_clear()
    folder, names = tau(tmp_path, "2022")
    meta = folder / "meta.csv"
    meta.write_text(meta.read_text().replace("lyon-1\t", "lyon-2\t"))
    out = tmp_path / "my.csv"
    command = ["--dataset=tau2022uas_mobile", f"--root={tmp_path}", f"--out={out}"]
    assert script.main(command) == 0
    assert "1 groups, such as 'lyon-2'" in capsys.readouterr().err
    groups = {clip.group for clip in read_manifest(out).clips if clip.split == "train"}
    assert "lyon-2 (split train)" in groups


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("moon", ["moon is unknown", "esc50", "tau2022uas_mobile"]),
        ("marco", ["marco has neither scenes nor events"]),
        ("esc50", ["nowhere: no such folder", "--download"]),
    ],
)
def test_a_mistake_is_one_line(script, tmp_path, capsys, name, reasons):
    out = tmp_path / "my.csv"
    assert script.main([f"--dataset={name}", f"--root={tmp_path}/nowhere", f"--out={out}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(reason in line for reason in reasons) and not out.exists()


@pytest.mark.parametrize("missing", ["meta.csv", "evaluation_setup/fold1_train.csv"])
def test_a_list_that_is_missing_is_named(script, tmp_path, capsys, missing):
    folder, _ = tau(tmp_path, "2022")
    (folder / missing).unlink()
    command = ["--dataset=tau2022uas_mobile", f"--root={tmp_path}", f"--out={tmp_path}/my.csv"]
    assert script.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{folder / missing} can't be read" in line and "--download" in line


@needs_soundata
@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("audio/1-100-A-0.wav", "esc50/audio/1-100-A-0.wav: no such file, one of 1"),
        ("meta/esc50.csv", "the metadata of esc50 in"),
        ("../esc50.json", "esc50.json: soundata's index of esc50 is missing"),
    ],
)
def test_what_is_missing_is_named(script, indexed, tmp_path, capsys, missing, named):
    root, _ = indexed("esc50")
    (root / missing).unlink()
    out = tmp_path / "my.csv"
    assert script.main(["--dataset=esc50", f"--root={root}", f"--out={out}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line and "--download" in line and not out.exists()
    assert not out.with_name("my.events.npz").exists()


@needs_soundata
def test_soundata_downloads_and_validates(script, indexed, tmp_path, capsys, monkeypatch):
    """The flags reach soundata; a wrong checksum, and an error of the network, are one line."""
    root, _ = indexed("esc50")
    asked = []
    monkeypatch.setattr(
        core.Dataset, "download", lambda _, partial_download: asked.append(partial_download)
    )
    command = ["--dataset=esc50", f"--root={root}", f"--out={tmp_path}/my.csv"]
    assert script.main([*command, "--download"]) == 0
    assert script.main([*command, "--download", "index"]) == 0
    assert asked == [None, ["index"]]
    assert "Downloading to" in capsys.readouterr().out
    capsys.readouterr()
    assert script.main([*command, "--validate"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "1-100-A-0.wav has another checksum, one of 2" in line

    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(core.Dataset, "download", fail)
    assert script.main([*command, "--download"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "can't download esc50: no network" in line


@needs_soundata
@pytest.mark.parametrize("name", ["tau2019uas", "tau2020uas_mobile", "tau2022uas_mobile"])
def test_only_what_the_manifest_needs_is_downloaded(script, tmp_path, capsys, monkeypatch, name):
    """Of TAU Urban Acoustic Scenes not the evaluation set, which has no labels."""
    asked = []
    monkeypatch.setattr(
        core.Dataset, "download", lambda _, partial_download: asked.append(partial_download)
    )
    tau(tmp_path, name[3:7], mobile=name.endswith("mobile"))
    command = [f"--dataset={name}", f"--root={tmp_path}", f"--out={tmp_path}/my.csv", "--download"]
    assert script.main(command) == 0
    (parts,) = asked
    assert {part.split(".")[0] for part in parts} <= {"development", "index"}
    assert {"development.audio.16", "development.meta"} < {*parts}
    assert f"Downloading to {tmp_path}: {', '.join(parts)}" in capsys.readouterr().out


@needs_soundata
@pytest.mark.parametrize(("part", "status"), [("evaluation", 0), ("development", 2)])
def test_only_what_the_manifest_needs_is_validated(script, tmp_path, monkeypatch, part, status):
    """Whatever the folder's name."""
    root = tmp_path / "development"
    tau(root, "2022", mobile=True)
    path = root / f"TAU-urban-acoustic-scenes-2022-mobile-{part}" / "audio" / "a.wav"
    missing = {"clips": {"a": [str(path)]}}
    monkeypatch.setattr(core.Dataset, "validate", lambda *_, **__: (missing, {}))
    command = ["--dataset=tau2022uas_mobile", f"--root={root}", f"--out={tmp_path}/my.csv"]
    assert script.main([*command, "--validate"]) == status


@pytest.mark.slow
def test_a_run_of_the_challenge_reports_scenes_and_devices(script, tmp_path):
    """configs/tau2022.py, made smaller, to results.json with accuracies by device."""
    tau(tmp_path, "2022")
    out = tmp_path / "my.csv"
    assert script.main(["--dataset=tau2022uas_mobile", f"--root={tmp_path}", f"--out={out}"]) == 0
    config = Config.from_dict(tau2022.get_config("5").to_dict()).replace(
        **{
            "data.manifest": str(out),
            "data.data_dir": str(tmp_path / "features"),
            "model.encoder.width_divisor": 32,
            "train.batch_size": 4,
            "train.epochs": 2,
        }
    )
    results = train.train(config, tmp_path / "run")
    test = results["test"]
    assert {name: each["clips"] for name, each in test["by_device"].items()} == dict(
        a=2, b=2, c=2, s4=2
    )
    assert {name: each["clips"] for name, each in test["by_devices"].items()} == dict(
        seen=6, unseen=2
    )
    assert set(test["by_scene"]) == {"airport", "bus"}
    assert json.loads((tmp_path / "run" / "results.json").read_text())["test"] == test
    licence = json.loads((tmp_path / "run" / "bundle" / "config.json").read_text())["licence"]
    assert "TAU Urban Acoustic Scenes 2022 Mobile" in licence
