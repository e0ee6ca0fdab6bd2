"""The sound of a row of a prepared dataset is the one that its features were computed from."""

import numpy as np
import pytest
import soundfile

from ergl_jax import audio
from ergl_jax.config import Config
from ergl_jax.datasets import sources
from ergl_jax.datasets.manifest import Clip, Corpus
from ergl_jax.errors import InputError, warn


@pytest.mark.parametrize("long, rows", [("windows", 3), ("crop", 1)])
def test_the_sound_of_a_row(tmp_path, long, rows):
    from configs import test

    rng = np.random.default_rng(0)
    for name, seconds in (("long", 5), ("short", 1.5)):
        soundfile.write(
            tmp_path / f"{name}.wav", rng.uniform(-0.3, 0.3, int(seconds * 16000)), 16000
        )
    (tmp_path / "clips.csv").write_text("file,scene,split\nlong.wav,a,test\nshort.wav,b,test\n")
    fields = {
        "source": "folder",
        "manifest": str(tmp_path / "clips.csv"),
        "data_dir": str(tmp_path / "data"),
        "long": long,
        "clip_seconds": 2.0,
        "front_end": "panns_16k",
    }
    config = Config.from_dict(test.get_config().to_dict())
    config = config.replace(**{f"data.{name}": value for name, value in fields.items()}).data
    dataset, listen = sources.open_dataset(config), sources.listener(config)
    split = dataset.split("test")
    assert len(split) == rows + 1
    for clip in (split[index] for index in range(len(split))):
        samples, rate = listen(clip["name"])
        assert rate == 16000 and len(samples) == (24000 if "short" in clip["name"] else 32000)
        padded = np.pad(samples, (0, 32000 - len(samples)))
        expected = audio.log_mel(padded[None], dataset.front_end)[0]
        np.testing.assert_allclose(clip["log_mel"], expected, atol=1e-3)
    (tmp_path / "long.wav").unlink()
    with pytest.raises(InputError, match="long.wav"):
        listen("long.wav#1" if long == "windows" else "long.wav")


@pytest.mark.parametrize(
    ("source", "labels", "pooling", "remedy"),
    [
        ("folder", [[0, 1], [1, 0]], "mean", "set model.pooling=linear"),
        ("folder", [[0, 1], [0.3, 0]], "mean", None),
        ("folder", [[0, 1], [1, 0]], "linear", None),
        ("folder", [[0, 0.7], [1, 0]], "linear", None),  # a PANN's probabilities, or shares
        ("synthetic", [[0, 0.7], [1, 0]], "linear", "set model.pooling=mean"),
        ("synthetic", [[0, 0.7], [1, 0]], "mean", None),
    ],
)
def test_labels_that_the_pooling_takes_for_something_else(capsys, source, labels, pooling, remedy):
    warn.cache_clear()
    clips = [
        Clip(str(number), 0, "train", "", np.array(row, np.float32), lambda *_: None)
        for number, row in enumerate(labels)
    ]
    corpus = Corpus("mine", ("rain",), ("Rain", "Dog"), clips, "", "")
    fields = {"data.source": source, "data.manifest": "my.csv" * (source == "folder")}
    sources.warn_of_labels(Config().replace(**fields).data, corpus, pooling)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(remedy) and all(remedy in line for line in lines)
