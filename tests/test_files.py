import errno
import os
import stat

import pytest

from t2t_vqem import files
from t2t_vqem.errors import UserError


def test_write_atomic_makes_folders_and_ordinary_files(tmp_path):
    path = tmp_path / "a" / "b.txt"
    files.write_atomic(str(path), "héllo")
    files.write_atomic(str(path), b"bytes")
    assert path.read_bytes() == b"bytes"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "No space left on device; make room"), (errno.EROFS, "Read-only file system; choose")],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, number, message):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=f"{path}: {message}"):
        files.write_atomic(str(path), "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        files.write_atomic(str(tmp_path / "file" / "run.json"), "x")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "out"
    out.mkdir()

    def interrupted():
        with files.new_folder(str(out)) as folder:
            assert os.path.dirname(folder) == str(tmp_path)
            (tmp_path / folder / "part").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(out) == []
    with files.new_folder(str(out)) as folder:
        (tmp_path / folder / "whole").touch()
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(out) == ["whole"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~umask


def test_what_is_there_is_not_replaced(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to("nowhere")
    for path in (tmp_path, tmp_path / "file", tmp_path / "gone"):
        with pytest.raises(UserError, match="exists and is no empty folder"), files.new_folder(str(path)):
            pass
    with pytest.raises(UserError, match="cannot write"), files.new_folder(str(tmp_path / "file" / "out")):
        pass
    assert sorted(os.listdir(tmp_path)) == ["file", "gone"]
