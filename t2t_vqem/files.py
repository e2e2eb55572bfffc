"""Files and folders that are whole or not there at all, and a lock on a folder."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator

from t2t_vqem.errors import UserError


@contextlib.contextmanager
def alone_in(folder: str) -> Iterator[None]:
    """Makes the folder and keeps other processes that ask for the same out of it."""
    with _writing(folder):
        os.makedirs(folder, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every network file system locks folders
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_atomic(path: str, data: str | bytes) -> None:
    """Writes a whole file or nothing: to a temporary name in the same folder, which is made, then renames.

    Raises:
      UserError: the disk is full, the folder read-only, or the like; the text names path and reason.
    """
    folder = os.path.dirname(path) or "."
    temporary = None
    with _writing(path):
        try:
            os.makedirs(folder, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(path)}.")
            with os.fdopen(handle, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            _give_name(temporary, path, 0o666)
            temporary = None
        finally:
            if temporary is not None:
                os.unlink(temporary)


def read(path: str) -> bytes:
    """Returns the bytes of a file; raises a UserError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def check_writable(path: str) -> None:
    """Raises UserError if no file can be written to `path`: before the work for it, not after."""
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "no ordinary file"
        raise UserError(f'"{path}" is {kind}; give the name of a file to write')
    folder = os.path.dirname(path) or "."
    with _writing(path):
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def check_new(path: str, flag: str = "output_dir") -> None:
    """Raises UserError if there is something at `path` that a new folder would have to replace."""
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise UserError(f'--{flag} "{path}" exists and is no empty folder; choose another')


@contextlib.contextmanager
def new_folder(path: str, flag: str = "output_dir") -> Iterator[str]:
    """Yields a folder beside `path` that is renamed to it when the block ends, or removed on an error.

    Raises:
      UserError: see `check_new`; or the folder cannot be made.
    """
    check_new(path, flag)
    path = os.path.realpath(path)
    parent, name = os.path.split(path)
    with _writing(path):
        os.makedirs(parent, exist_ok=True)
        temporary = tempfile.mkdtemp(dir=parent, prefix=f".{name}.")
    try:
        yield temporary
        with _writing(path):
            _give_name(temporary, path, 0o777)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # unless it has its name


def _give_name(temporary: str, path: str, mode: int) -> None:
    """Renames, and gives what tempfile made private the rights that the user's umask allows."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(temporary, mode & ~umask)
    os.replace(temporary, path)


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    """Turns the failures of the block into a sentence about `path`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "make room" if full else "choose a folder you can write to"
        raise UserError(f"cannot write {path}: {error.strerror or error}; {mend}") from error
