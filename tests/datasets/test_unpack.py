"""Unpacking an archive of TUT 2018: everything inside the folder, over what is there."""

import stat
import zipfile

import pytest

from ergl_jax.datasets.tut2018 import FOLDER, unpack
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


def files(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_unpacks_all_without_the_top_folder(folder, tmp_path):
    members = ("audio/a.wav", b"1"), ("b.csv", b"2"), ("", b""), ("d/", b"")
    members = [(f"{FOLDER}/{name}", content) for name, content in members]
    unpack(archive_of(tmp_path / "a.zip", *members, ("other/c", b"3")), folder)
    expected = {"audio/a.wav": b"1", "b.csv": b"2", "other/c": b"3"}
    assert files(folder) == expected
    unpack(archive_of(tmp_path / "a.zip", (f"{FOLDER}/b.csv", b"new")), folder)
    assert files(folder) == expected | {"b.csv": b"new"}


@pytest.mark.parametrize("member", ["../evil", f"{FOLDER}/../../evil", "/evil", f"{FOLDER}//evil"])
def test_no_member_is_unpacked_outside_the_folder(folder, tmp_path, member):
    unpack(archive_of(tmp_path / "a.zip", (member, b"1")), folder)
    assert files(folder) == {"evil": b"1"} and len(files(tmp_path)) == 2


def test_a_link_becomes_a_plain_file(folder, tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    unpack(archive_of(tmp_path / "a.zip", (info, b"/etc/passwd")), folder)
    assert not (folder / "link").is_symlink() and files(folder) == {"link": b"/etc/passwd"}


def test_archives_that_cannot_be_unpacked(folder, tmp_path):
    archive = archive_of(tmp_path / "a.zip", ("a", b"1" * 2000), ("b", b"2" * 1000))
    whole = archive.read_bytes()
    at = whole.index(b"PK\x03\x04") + 31  # in the first member's content
    for damaged in (whole[:-40], b"", whole[:at] + b"\xff" + whole[at + 1 :]):
        archive.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a.zip can't be unpacked"):
            unpack(archive, folder)
    archive.write_bytes(whole)
    (folder / "b").mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        unpack(archive, folder)
