"""Unpacking: everything inside the folder, or nothing at all."""

import stat
import zipfile

import pytest

from ergl_jax import downloads
from ergl_jax.datasets.archives import unpack
from ergl_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def archive_of(path, *members):
    """members: (name or ZipInfo, content)"""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def special(name, kind):
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info


def files(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_unpacks_all_without_the_top_folder(folder, tmp_path):
    members = [("top/audio/a.wav", b"1"), ("top/b.csv", b"2"), ("other/c", b"3"), ("top/d/", b"")]
    members.append((special("top/plain", stat.S_IFREG), b"4"))
    unpack(archive_of(tmp_path / "a.zip", *members), folder, strip="top")
    expected = {"audio/a.wav": b"1", "b.csv": b"2", "other/c": b"3", "plain": b"4"}
    assert files(folder) == expected
    unpack(archive_of(tmp_path / "a.zip", ("top/b.csv", b"new")), folder, strip="top")
    assert files(folder) == expected | {"b.csv": b"new"}


@pytest.mark.parametrize(
    "member",
    ["../evil", "top/../../evil", "/evil", "top//evil", "..\\evil", "C:evil", "link/evil"]
    + [special("link", stat.S_IFLNK), special("pipe", stat.S_IFIFO)],
    ids=lambda member: getattr(member, "filename", member),
)
def test_a_member_outside_the_folder_is_named_and_nothing_is_unpacked(folder, tmp_path, member):
    (tmp_path / "out").mkdir()
    (folder / "link").symlink_to(tmp_path / "out")
    archive = archive_of(tmp_path / "a.zip", ("good", b"1"), (member, b"/etc/passwd"))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        unpack(archive, folder, strip="top")
    assert repr(getattr(member, "filename", member)) in str(caught.value)
    assert str(archive) in str(caught.value) and set(tmp_path.rglob("*")) == before


def test_archives_that_cannot_be_unpacked(folder, tmp_path, monkeypatch):
    archive = archive_of(tmp_path / "a.zip", ("a", b"1" * 2000), ("b", b"2" * 1000))
    whole = archive.read_bytes()
    at = whole.index(b"PK\x03\x04") + 31  # in the first member's content
    encrypted = bytearray(whole)
    encrypted[whole.index(b"PK\x03\x04") + 6] |= 1
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    for damaged in (whole[:-40], b"", whole[:at] + b"\xff" + whole[at + 1 :], encrypted):
        archive.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a.zip can't be unpacked"):
            unpack(archive, folder)
    archive.write_bytes(whole)
    (folder / "b").mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        unpack(archive, folder)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: type("", (), {"free": 2999})())
    with pytest.raises(InputError, match="needed"):
        unpack(archive, folder)
