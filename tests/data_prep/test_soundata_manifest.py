"""soundata_manifest.py on a small tree in the layout of each data set, with silence for its sounds.

The trees have the layouts of the published data sets, and an index as soundata downloads it.
"""

import json
import warnings

import numpy as np
import pytest
import soundfile

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
SENSOR = "[b8][2020-08-19T22-46-04Z][manual][---][4e][]-{}"


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("data_prep/soundata_manifest.py")


def make(root, texts, sounds, seconds=0.1):
    """Writes texts, and for each sound a WAV or FLAC of noise."""
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(text) + "\n", encoding="utf-8")
    for number, name in enumerate(sounds):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).normal(0, 0.1, round(seconds * 16000))
        soundfile.write(root / name, noise, 16000)


def esc50(root):
    rows = ["1-100-A-0.wav,1,0,dog,True,100,A", "2-200-A-10.wav,2,10,rain,True,200,A"]
    make(
        root,
        {"meta/esc50.csv": ["filename,fold,target,category,esc10,src_file,take", *rows]},
        ["audio/1-100-A-0.wav", "audio/2-200-A-10.wav"],
    )
    return {"1-100-A-0": "audio/1-100-A-0.wav", "2-200-A-10": "audio/2-200-A-10.wav"}, [
        ("dog", "1", "100", {"dog": 1}),
        ("rain", "2", "200", {"rain": 1}),
    ]


def urbansound8k(root):
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    rows = ["7-3-0-0.wav,7,0.0,4.0,1,1,3,dog_bark", "8-8-0-1.wav,8,0.5,4.5,2,10,8,siren"]
    clips = {"7-3-0-0": "audio/fold1/7-3-0-0.wav", "8-8-0-1": "audio/fold10/8-8-0-1.wav"}
    make(root, {"metadata/UrbanSound8K.csv": [header, *rows]}, clips.values())
    return clips, [
        ("dog_bark", "1", "7", {"dog_bark": 1}),
        ("siren", "10", "8", {"siren": 1}),
    ]


def fsdnoisy18k(root):
    clips = {"17": "FSDnoisy18k.audio_train/17.wav", "564": "FSDnoisy18k.audio_test/564.wav"}
    texts = {
        "train.csv": ["fname,label,aso_id,manually_verified,noisy_small", "17.wav,Bell,/m/0,1,0"],
        "test.csv": ["fname,label,aso_id", "564.wav,Rain,/m/1"],
    }
    make(root, {f"FSDnoisy18k.meta/{name}": text for name, text in texts.items()}, clips.values())
    return clips, [("Bell", "train", None, {"Bell": 1}), ("Rain", "test", None, {"Rain": 1})]


def birds(table, header):
    def tree(root):
        rows = ["64486,ff1010,0", "99,ff1010,1"]
        rows = rows if "datasetid" in header else ["64486.wav,0", "99.wav,1"]
        clips = {name: f"{name}.wav" for name in ("64486", "99")}
        make(root, {table: [header, *rows]}, clips.values())
        return clips, [("no bird", None, None, {}), ("bird", None, None, {})]

    return tree


def eigenscape(template):
    def tree(root):
        header = "Filename,Class,Location,Time,Date,Additional Information"
        rows = [
            "Beach-01.wav,Beach,Filey,10:42,09/05/2017,",
            'Park-02.wav,Park,"Rowntree Park, York",14:00,11/05/2017,',
        ]
        names = [template.format("Beach", "1"), template.format("Park", "2")]
        make(root, {"Metadata-EigenScape.csv": [header, *rows]}, [f"{name}.wav" for name in names])
        return {name: f"{name}.wav" for name in names}, [
            ("Beach", None, "Filey", {}),
            ("Park", None, "Rowntree Park, York", {}),
        ]

    return tree


def fsd50k(root):
    folders = {"1": "dev", "2": "dev", "3": "eval"}
    clips = {name: f"FSD50K.{folder}_audio/{name}.wav" for name, folder in folders.items()}
    truth, about = "FSD50K.ground_truth", "FSD50K.metadata"

    def info(uploader, licence="https://creativecommons.org/publicdomain/zero/1.0/"):
        return dict(title="", description="", tags=[], license=licence, uploader=uploader)

    labels = '"Guitar,Music","/m/0,/m/1"'
    header, collection = "fname,labels,mids", f"{about}/collection/collection"
    texts = {
        f"{truth}/dev.csv": [f"{header},split", f"1,{labels},train", "2,Rain,/m/2,val"],
        f"{truth}/eval.csv": [header, f"3,{labels}"],
        f"{collection}_dev.csv": [header, f"1,{labels}", "2,Rain,/m/2"],
        f"{collection}_eval.csv": [header, f"3,{labels}"],
        f"{about}/dev_clips_info_FSD50K.json": [json.dumps({"1": info("ann"), "2": info("ann")})],
        f"{about}/eval_clips_info_FSD50K.json": [json.dumps({"3": info("bob", "CC BY")})],
        f"{about}/pp_pnp_ratings_FSD50K.json": [json.dumps(dict.fromkeys(clips, {}))],
    }
    make(root, texts, clips.values())
    both = {"Guitar": 1, "Music": 1}
    return clips, [
        ("any", "train", "ann (split train)", both),
        ("any", "validation", "ann (split validation)", {"Rain": 1}),
        ("any", "test", "bob", both),
    ]


def urbansed(root):
    clips, texts = {}, {}
    lines = ["0.5\t1.5\tsiren", "2.0\t3.0\tsiren", "2.5\t9.0\tdrilling"]
    for split in ("train", "validate", "test"):
        name = f"soundscape_{split}_uniform1"
        texts[f"annotations/{split}/{name}.txt"] = lines
        clips[name] = {
            "audio": f"audio/{split}/{name}.wav",
            "txt": f"annotations/{split}/{name}.txt",
            "jams": f"annotations/{split}/{name}.jams",
        }
    make(root, texts, [each["audio"] for each in clips.values()])
    events = {"siren": 1, "drilling": 1}
    return clips, [("any", split, None, events) for split in ("train", "validation", "test")]


def tut2017se(root):
    develop, evaluate = (f"TUT-sound-events-2017-{x}" for x in ("development", "evaluation"))
    setup = "evaluation_setup/street"
    folds = {f"{develop}/{setup}_fold{k}_test.txt": [""] for k in (2, 3)}
    lists = {
        f"{develop}/{setup}_fold1_test.txt": ["audio/street/a001.wav"],
        f"{develop}/{setup}_fold4_test.txt": ["audio/street/b002.wav"],
        f"{evaluate}/{setup}_test.txt": ["audio/street/c003.wav"],
    }
    homes = {"a001": develop, "b002": develop, "c003": evaluate}
    car = "audio/street/x.wav\tstreet\t1.5\t9.0\tcar\tm\tx"
    notes = {f"{home}/meta/street/{name}.ann": [car] for name, home in homes.items()}
    notes[f"{evaluate}/meta/street/c003.ann"] = ["0.5\t2.0\tpeople walking"]
    clips = {
        name: {
            "audio": f"{home}/audio/street/{name}.wav",
            "annotations": f"{home}/meta/street/{name}.ann",
            "non_verified_annotations": None,
        }
        for name, home in homes.items()
    }
    folds = {path: ["audio/street/a001.wav"] for path in folds} | lists
    folds = dict(sorted(folds.items(), key=lambda item: "fold1" in item[0]))
    for k in (2, 3):  # empty lists, as far as these three recordings go
        (root / develop / "evaluation_setup").mkdir(parents=True, exist_ok=True)
        (root / f"{develop}/{setup}_fold{k}_test.txt").write_text("")
        folds.pop(f"{develop}/{setup}_fold{k}_test.txt")
    make(root, folds | notes, [each["audio"] for each in clips.values()])
    return clips, [
        ("street", "1", None, {"car": 1}),
        ("street", "4", None, {"car": 1}),
        ("street", "evaluation", None, {"people walking": 1}),
    ]


def singapura(root):
    names = [SENSOR.format(number) for number in (135, 136)]
    header = "sensor_id,filename,year,month,date,day,hour,minute,second,timezone,town"
    rows = [f"s{i},{name}.flac,2020,8,20,4,6,46,4,SGT,West 2" for i, name in enumerate(names)]
    texts = {"labelled_metadata_public.csv": [header, *rows]}
    columns = "annotator,filename,event_label,proximity,onset,offset,remarks"
    heard = [[(1, "9-2"), (1, "9-2"), (2, "9-2"), (2, "8-1")], [(3, "7-0")]]
    for name, events in zip(names, heard, strict=True):
        lines = [f"{who},{name}.flac,{what},far,0.0,0.8," for who, what in events]
        texts[f"labels_public/{name}.csv"] = [columns, *lines]
    clips = {
        name: {
            "audio": f"labelled/2020-08-19/{name}.flac",
            "annotation": f"labels_public/{name}.csv",
        }
        for name in names
    }
    make(root, texts, [each["audio"] for each in clips.values()])
    return clips, [("any", None, "s0", {"9-2": 1, "8-1": 0.5}), ("any", None, "s1", {"7-0": 1})]


def dcase23_task4b(root):
    clips, texts = {}, {}
    lines = ["0.0\t1.0\tfootsteps\t0.25", "1.0\t2.0\tfootsteps\t0.75", "0.0\t1.0\tcar\t0.5"]
    for scene in ("cafe_restaurant", "city_center"):
        note = f"development_annotation/soft_labels_{scene}/{scene}_14.txt"
        texts[note] = lines
        audio = f"development_audio/{scene}/{scene}_14.wav"
        clips[f"{scene}_14"] = {"audio": audio, "annotations": note}
    make(root, texts, [each["audio"] for each in clips.values()])
    events = {"footsteps": 0.75, "car": 0.5}
    return clips, [(scene, None, None, events) for scene in ("cafe_restaurant", "city_center")]


TREES = {
    "dcase23_task4b": dcase23_task4b,
    "dcase_birdVox20k": birds("BirdVoxDCASE20k_csvpublic.csv", "itemid,datasetid,hasbird"),
    "eigenscape": eigenscape("{}.{}"),
    "eigenscape_raw": eigenscape("{}-0{}-Raw"),
    "esc50": esc50,
    "freefield1010": birds("ff1010bird_metadata_2018.csv", "itemid,datasetid,hasbird"),
    "fsd50k": fsd50k,
    "fsdnoisy18k": fsdnoisy18k,
    "singapura": singapura,
    "tut2017se": tut2017se,
    "urbansed": urbansed,
    "urbansound8k": urbansound8k,
    "warblrb10k": birds("warblrb10k_public_metadata.csv", "itemid,hasbird"),
}


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


def tau(root, year, *, devices="abc", mobile=True):
    """Six scenes' worth of lists: two training and one test location, each with the devices."""
    name = f"TAU-urban-acoustic-scenes-{year}{'-mobile' * mobile}-development"
    header = ["filename", "scene_label", "identifier", *["source_label"] * mobile]
    meta, train_rows, test_rows, sounds = [header], [], [], []
    for i, scene in enumerate(("airport", "bus")):
        for place in range(3):
            for device in [*devices, *["s4"] * (place == 2)]:
                location = f"lyon-{10 * i + place}"
                file = f"audio/{scene}-{location}-0-{device}.wav"
                sounds.append(f"{name}/{file}")
                meta.append([file, scene, location, *[device] * mobile])
                (test_rows if place == 2 else train_rows).append([file, scene])
    meta.append(["audio/bus-oslo-1-0-a.wav", "bus", "oslo-1", *["a"] * mobile])  # in no list
    texts = {
        "meta.csv": meta,
        "evaluation_setup/fold1_train.csv": [["filename", "scene_label"], *train_rows],
        "evaluation_setup/fold1_evaluate.csv": [["filename", "scene_label"], *test_rows],
    }
    make(root, {f"{name}/{k}": map("\t".join, rows) for k, rows in texts.items()}, sounds, 1.0)
    return root / name, [row[0] for row in train_rows]


@needs_soundata
def test_every_data_set_of_soundata_is_known(script):
    import soundata

    assert {*script.LAYOUTS} | {*script.OTHERS} == {*soundata.list_datasets()}
    assert {*script.LAYOUTS} == {*TREES} | {n for n in script.LAYOUTS if n.endswith("mobile")} | {
        "tau2019uas"
    }


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
