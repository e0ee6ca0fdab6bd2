"""Unpacking: everything inside the folder, or nothing at all."""

import stat
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ergl_jax import downloads
from ergl_jax.datasets.archives import unpack
from ergl_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def archive_of(path, members):
    """members: (name or ZipInfo, content)"""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def error_of(*arguments, **keywords):
    with pytest.raises(InputError) as caught:
        unpack(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    return message


def special(name, kind):
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info


def files(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_unpacks_all_without_the_top_folder(folder, tmp_path):
    members = [("top/audio/a.wav", b"1"), ("top/b.csv", b"2"), ("other/c", b"3"), ("top/d/", b"")]
    members.append((special("top/plain", stat.S_IFREG), b"4"))
    unpack(archive_of(tmp_path / "a.zip", members), folder, strip="top")
    expected = {"audio/a.wav": b"1", "b.csv": b"2", "other/c": b"3", "plain": b"4"}
    assert files(folder) == expected
    unpack(archive_of(tmp_path / "a.zip", [("top/b.csv", b"new")]), folder, strip="top")
    assert files(folder) == expected | {"b.csv": b"new"}


@pytest.mark.parametrize(
    "member",
    [
        "../evil",
        "top/../../evil",
        "a/../b",
        "/evil",
        "top//evil",
        "..\\evil",
        "C:evil",
        special("link", stat.S_IFLNK),
        special("pipe", stat.S_IFIFO),
    ],
    ids=lambda member: getattr(member, "filename", member),
)
def test_a_member_that_leads_out_is_named_and_nothing_is_unpacked(folder, tmp_path, member):
    archive = archive_of(tmp_path / "a.zip", [("good", b"1"), (member, b"/etc/passwd")])
    before = set(tmp_path.rglob("*"))
    message = error_of(archive, folder, strip="top")
    name = getattr(member, "filename", member)
    assert repr(name) in message and str(archive) in message
    assert set(tmp_path.rglob("*")) == before


def test_a_link_that_lies_there_is_not_followed_out(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (folder / "audio").symlink_to(tmp_path / "out")
    assert "audio/a.wav" in error_of(
        archive_of(tmp_path / "a.zip", [("audio/a.wav", b"1")]), folder
    )
    assert not list((tmp_path / "out").iterdir())


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    parts=st.lists(st.sampled_from(["..", ".", "a", "b", "", "top", "~", "c:"]), min_size=1).filter(
        "/".join
    ),
)
def test_no_name_whatever_writes_outside(tmp_path_factory, parts):
    base = tmp_path_factory.mktemp("any")
    (base / "in").mkdir()
    archive = archive_of(base / "a.zip", [("/".join(parts), b"1")])
    try:
        unpack(archive, base / "in", strip="top")
    except InputError:
        assert not list((base / "in").iterdir())
    assert {path.name for path in base.iterdir()} == {"in", "a.zip"}


def test_damaged_archives(folder, tmp_path):
    archive = archive_of(tmp_path / "a.zip", [("a", b"1" * 1000), ("b", b"2" * 1000)])
    whole = archive.read_bytes()
    at = whole.index(b"PK\x03\x04") + 31  # in the first member's content
    for damaged in (
        whole[:-40],
        whole[: at + 3],
        b"no zip",
        b"",
        whole[:at] + b"\xff" + whole[at + 1 :],
    ):
        archive.write_bytes(damaged)
        assert f"{archive} can't be unpacked" in error_of(archive, folder)


def test_encrypted_members(folder, tmp_path):
    archive = archive_of(tmp_path / "a.zip", [("a", b"1")])
    whole = bytearray(archive.read_bytes())
    whole[whole.index(b"PK\x03\x04") + 6] |= 1
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(whole)
    assert "encrypted" in error_of(archive, folder)


def test_no_space_for_what_it_holds(folder, tmp_path, monkeypatch):
    archive = archive_of(tmp_path / "a.zip", [("a", b"1" * 2000)])
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: type("", (), {"free": 1999})())
    assert str(folder) in error_of(archive, folder) and not list(folder.iterdir())


def test_a_folder_in_a_files_place(folder, tmp_path):
    (folder / "a").mkdir()
    archive = archive_of(tmp_path / "a.zip", [("a", b"1")])
    assert "Is a directory" in error_of(archive, folder)
    assert not files(folder)
