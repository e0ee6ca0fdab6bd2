"""Small trees in the layouts of public data sets, with noise for their sounds.

Each entry of `TREES` writes one; it returns the files of each clip, as soundata's index lists them,
and the expected rows of a manifest: scene, split or fold, group (None: the clip), and events.
"""

import json

import numpy as np
import soundfile

SENSOR = "[b8][2020-08-19T22-46-04Z][manual][---][4e][]-{}"


def make(root, texts, sounds, seconds=0.1):
    """Writes texts, and for each sound a WAV or FLAC of noise."""
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
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
    homes = {"a001": develop, "b002": develop, "c003": evaluate}
    lists = {f"{develop}/evaluation_setup/street_fold{k}_test.txt": [] for k in (2, 3)}
    lists[f"{develop}/evaluation_setup/street_fold1_test.txt"] = ["audio/street/a001.wav"]
    lists[f"{develop}/evaluation_setup/street_fold4_test.txt"] = ["audio/street/b002.wav"]
    lists[f"{evaluate}/evaluation_setup/street_test.txt"] = ["audio/street/c003.wav"]
    notes = {"a001": "x.wav\tstreet\t1.5\t9.0\tcar\tm\tx", "c003": "0.5\t2.0\tpeople walking"}
    notes["b002"] = notes["a001"]
    clips = {
        name: {
            "audio": f"{home}/audio/street/{name}.wav",
            "annotations": f"{home}/meta/street/{name}.ann",
            "non_verified_annotations": None,
        }
        for name, home in homes.items()
    }
    texts = {clips[name]["annotations"]: [line] for name, line in notes.items()}
    make(root, lists | texts, [each["audio"] for each in clips.values()])
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
