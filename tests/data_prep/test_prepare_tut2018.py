"""prepare_dataset.py tut2018: from a server's archives to features, and what can go wrong."""

import pytest

from configs import ergl
from ergl_jax import downloads
from ergl_jax.datasets import builder, sources, tut2018

PARTS = ("doc", "meta", "audio.1", "audio.2")


def archive(part):
    return f"{tut2018.FOLDER}.{part}.zip"


@pytest.fixture
def prepare(load_script, tmp_path, capfd):
    """Runs the command; returns its status and both its streams, without progress bars."""
    main = load_script("data_prep/prepare_dataset.py").main

    def prepare(*more):
        capfd.readouterr()
        settings = ["--front_end=panns_16k", "--clip_seconds=0.4", f"--data_dir={tmp_path}/data"]
        status = main(["tut2018", *settings, *more])
        out, err = capfd.readouterr()
        lines = [line for line in err.replace("\r", "\n").splitlines() if "|" not in line]
        return status, out, [line for line in lines if line.strip() and "B/s]" not in line]

    return prepare


@pytest.fixture
def fails(prepare):
    """Runs the command, which must fail as a user's mistake does; returns its one line."""

    def fails(*more):
        status, out, (licence, line) = prepare(*more)
        assert (status, out, licence) == (2, "", tut2018.LICENCE)
        assert line.startswith("error: ")
        return line

    return fails


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data" / "tut2018"


def unpacked(root):
    return sorted(path.name.removeprefix(tut2018.FOLDER)[1:-4] for path in root.glob(".unpacked/*"))


def config(tmp_path, **fields):
    data = ergl.get_config("tut2018").data
    data.update(front_end="panns_16k", clip_seconds=0.4, data_dir=f"{tmp_path}/data", **fields)
    return data


def test_from_the_server_to_features_and_a_training_corpus(
    prepare, fake_tut, root, tmp_path, capfd
):
    status, out, err = prepare()
    assert status == 0 and err == [tut2018.LICENCE] and "non-commercial" in tut2018.LICENCE
    dataset = builder.load(out.splitlines()[0])
    # Two of a scene's four training locations would be 50 %, one is 25 %.
    assert dataset.sizes == {"train": 18, "validation": 6, "test": 12}
    assert dataset.scenes == ("airport", "metro_station", "tram") and dataset.events == ()
    assert dataset.licence == tut2018.LICENCE and dataset.name == "tut2018"
    assert [name for name, _ in fake_tut.web.asked] == [archive(part) for part in PARTS]
    # Nothing of a download is left, and every member is where its archive has it.
    names = {"README.md", "meta.csv", "audio", "evaluation_setup", "manifest.csv", ".unpacked"}
    assert {path.name for path in root.iterdir()} == names
    for members in fake_tut.members.values():
        assert all((root / name).read_bytes() == content for name, content in members.items())

    groups = {split: set(dataset.split(split).arrays()["group"]) for split in dataset.sizes}
    assert [len(places) for places in groups.values()] == [9, 3, 6]
    assert len(set.union(*groups.values())) == 18
    # The training of the same settings opens what this built.
    opened = sources.open_dataset(config(tmp_path))
    assert opened.path == dataset.path and "features" not in capfd.readouterr().err

    assert prepare() == (0, out, [tut2018.LICENCE])
    assert len(fake_tut.web.asked) == len(PARTS)


def test_given_archives_are_used_and_never_deleted(prepare, fake_tut, root, tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    for part in ("meta", "audio.2"):
        (given / archive(part)).write_bytes(fake_tut.web.files[archive(part)])
    assert prepare(f"--archives={given}")[0] == 0
    assert [name for name, _ in fake_tut.web.asked] == [archive("doc"), archive("audio.1")]
    assert sorted(path.name for path in given.iterdir()) == [archive("audio.2"), archive("meta")]
    assert not (root / "archives").exists()


def test_wrong_given_archives(fails, fake_tut, root, tmp_path):
    assert f"{tmp_path}/given contains none of the archives" in fails(
        f"--archives={tmp_path}/given"
    )
    path = tmp_path / archive("doc")
    path.write_bytes(b"not the archive")
    line = fails(f"--archives={tmp_path}")
    assert str(path) in line and "expected" in line and path.read_bytes() == b"not the archive"
    assert fake_tut.web.asked == [] and unpacked(root) == []


def test_a_bad_archive_stops_and_the_same_command_resumes(prepare, fails, fake_tut, root):
    web, name = fake_tut.web, archive("audio.1")
    body = web.files[name]
    for bad, reason in ((body[:-100], "bytes where"), (body[:-1] + b"?", "md5")):
        web.files[name] = bad
        line = fails()
        assert name in line and reason in line
        assert unpacked(root) == ["doc", "meta"] and not (root / "manifest.csv").exists()
        assert not list((root / "archives").iterdir())
    web.files[name] = body
    web.asked.clear()
    assert prepare()[0] == 0
    assert [asked for asked, _ in web.asked] == [name, archive("audio.2")]


def test_a_download_that_breaks_off_is_resumed(prepare, fails, fake_tut, root):
    web, name = fake_tut.web, archive("audio.1")
    web.cuts[name] = [1000] + [0] * downloads.ATTEMPTS
    assert "after 1000 bytes" in fails()
    web.cuts[name], web.asked[:] = [500], []
    assert prepare()[0] == 0
    assert web.asked[:2] == [(name, "bytes=1000-"), (name, "bytes=1500-")]
    for path, content in fake_tut.members["audio.1"].items():
        assert (root / path).read_bytes() == content


def test_archives_that_were_unpacked_are_not_unpacked_again(prepare, fake_tut, root, monkeypatch):
    done, unpack = [], tut2018.unpack

    def unpack_two(path, *arguments, **keywords):
        unpack(path, *arguments, **keywords)
        if len(done) == 2:
            raise KeyboardInterrupt  # before the archive is marked
        done.append(path.name)

    monkeypatch.setattr(tut2018, "unpack", unpack_two)
    status, out, err = prepare()
    assert (status, out) == (130, "") and "interrupted" in err[-1]
    assert unpacked(root) == ["doc", "meta"]
    monkeypatch.setattr(tut2018, "unpack", unpack)
    fake_tut.web.asked.clear()
    assert prepare()[0] == 0
    assert [name for name, _ in fake_tut.web.asked] == [archive("audio.2")]
    assert unpacked(root) == sorted(PARTS) and not (root / "archives").exists()


def test_no_space_is_found_before_the_download(fails, fake_tut, root, tmp_path, monkeypatch):
    sizes = [archive.size for archive in tut2018.DEVELOPMENT.archives]
    free = max(sizes) + tut2018.EXPANSION * sum(sizes)
    disk = type("", (), {"free": free - 1})()
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: disk)
    line = fails()
    assert "needed" in line and "free" in line and str(root) in line
    disk.free = free
    assert "needed" in fails("--keep-archives")  # all of them at once
    assert fake_tut.web.asked == []


def edit(text, old, new):
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("name", "change", "parts"),
    [
        ("fold1_train", None, ["fold1_train.txt can't be read", "No such file", "meta.zip"]),
        ("fold1_train", lambda t: t.split("\n", 1)[1], ["23 train clips", "has 24"]),
        ("fold1_test", lambda t: t.split("\n", 1)[1], ["fold1_test.txt and fold1_evaluate.txt"]),
        ("fold1_train", lambda t: edit(t, "\tairport", "\tbus"), ["fold1_train.txt, line 1"]),
        ("fold1_train", lambda t: edit(t, "airport-paris", "beach-paris"), ["line 1", "beach"]),
        ("fold1_train", lambda t: t + t.splitlines()[0], ["line 25"]),
        ("fold1_train", lambda t: edit(t, "paris-0-0", "paris-0-9"), ["1 recordings", "paris-0-9"]),
        ("fold1_train", lambda t: edit(t, "paris-0-0", "paris-4-9"), ["location paris-4"]),
    ],
)
def test_wrong_lists(fails, fake_tut, root, monkeypatch, name, change, parts):
    meta, path = fake_tut.members["meta"], f"evaluation_setup/{name}.txt"
    text = meta.pop(path).decode()
    if change:
        meta[path] = change(text).encode()
    monkeypatch.setattr(tut2018, "DEVELOPMENT", fake_tut.publish())
    line = fails()
    assert all(part in line for part in parts), line
    assert not (root / "manifest.csv").exists()
    audio = [name for name, _ in fake_tut.web.asked if ".audio." in name]
    assert len(audio) == (2 if "1 recordings" in parts else 0)  # else the lists alone tell
