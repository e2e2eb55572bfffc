"""The published files of CIFAR-10: Python pickles or binary, unpacked or in the archive they come in.

A pickle is a program: whoever loads one runs it. Those of CIFAR-10 need numpy's arrays and nothing else, so nothing
else is let through.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from t2t_vqem.errors import UserError

TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_FILE = "test_batch"
NUM_CLASSES = 10
SHAPE = (32, 32, 3)
_NUMBERS = 32 * 32 * 3

Batch = tuple[np.ndarray, np.ndarray]
"""Pictures, uint8 [n, 32, 32, 3], and labels, int [n]."""


class Published:
    """The published files in one form, in a folder or an archive."""

    def __init__(self, form: _Form, path: str):
        """`path` is the folder that holds the six files, or the archive."""
        self._form, self._path = form, path
        self._packed = not os.path.isdir(path)

    def source_files(self) -> list[str]:
        """Returns the paths of what is read."""
        if self._packed:
            return [self._path]
        return [os.path.join(self._path, self._form.file(name)) for name in (*TRAIN_FILES, TEST_FILE)]

    def read(self, name: str, count: int) -> Batch:
        """Returns the pictures and labels of one of the six files.

        Args:
          name: without the ending that the form has.
          count: how many pictures it must hold.

        Raises:
          UserError: it is missing, damaged, or no such file; the text names it.
        """
        where = os.path.join(self._path, self._form.file(name))
        raw = self._unpacked(name) if self._packed else _contents(where)
        pictures, labels = self._form.parse(raw, where)
        if len(pictures) != len(labels):
            raise UserError(f"{where} holds {len(pictures)} pictures but {len(labels)} labels")
        if len(pictures) != count:
            raise UserError(f"{where} holds {len(pictures)} pictures instead of {count}; it is not whole")
        wrong = np.flatnonzero((labels < 0) | (labels >= NUM_CLASSES))
        if wrong.size:
            raise UserError(
                f"{where}: picture {wrong[0]} has the label {labels[wrong[0]]}; CIFAR-10 has the labels 0 to 9"
            )
        return pictures.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels

    def _unpacked(self, name: str) -> bytes:
        with _opened(self._path) as archive:
            try:
                file = archive.extractfile(f"{self._form.folder}/{self._form.file(name)}")
            except KeyError:
                file = None
            if file is None:
                raise UserError(f"{self._path} holds no {self._form.folder}/{self._form.file(name)}")
            return file.read()


def find(source_dir: str) -> Published:
    """Returns the published files: `source_dir` is their folder, the folder above, or an archive.

    Raises:
      UserError: there are none.
    """
    if os.path.isfile(source_dir):
        with _opened(source_dir) as archive:
            names = set(archive.getnames())
        for form in _FORMS:
            if f"{form.folder}/{form.file(TEST_FILE)}" in names:
                return Published(form, source_dir)
    for form in _FORMS:
        for folder in (source_dir, os.path.join(source_dir, form.folder)):
            if any(os.path.isfile(os.path.join(folder, form.file(n))) for n in (*TRAIN_FILES, TEST_FILE)):
                return Published(form, folder)
    for form in _FORMS:
        archive_path = os.path.join(source_dir, form.archive)
        if os.path.isfile(archive_path):
            return Published(form, archive_path)
    wanted = ", ".join(name for form in _FORMS for name in (form.folder, form.archive))
    raise UserError(f"{source_dir} is or holds none of {wanted}; is --source_dir right?")


class _Form(NamedTuple):
    """How the six files are written; `parse(raw, where)` returns numbers [n, 3072], plane by plane, and labels."""

    folder: str
    archive: str
    ending: str
    parse: Callable[[bytes, str], Batch]

    def file(self, name: str) -> str:
        return name + self.ending


def _contents(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; is --source_dir right?") from error


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path) as archive:
            yield archive
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(f"{path} is no whole tar archive: {error}; download it again") from error


class _Refused(Exception):
    """What a pickle asked for and did not get."""


class _ArraysOnly(pickle.Unpickler):
    _ADMITTED = (
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.numeric", "_frombuffer"),
    )

    def find_class(self, module: str, name: str) -> object:
        module = module.replace("numpy.core.", "numpy._core.")  # what numpy 1 called it
        if (module, name) not in self._ADMITTED:
            raise _Refused(f"{module}.{name}")
        return super().find_class(module, name)


def _from_pickle(raw: bytes, where: str) -> Batch:
    try:
        batch = _ArraysOnly(io.BytesIO(raw), encoding="bytes").load()
    except _Refused as refused:
        raise UserError(
            f"{where} asks for {refused}, which no file of CIFAR-10 needs; nothing of it was run"
        ) from None
    except Exception as error:  # there is no end to what bytes out of place can raise
        raise UserError(f"{where} is truncated or no pickle at all; download it again") from error
    fields = (
        {key.decode() if isinstance(key, bytes) else key: batch[key] for key in batch}
        if isinstance(batch, dict)
        else {}
    )
    for key in ("data", "labels"):
        if key not in fields:
            raise UserError(f'{where} is no batch of CIFAR-10: it has no "{key}"')
    pictures, labels = fields["data"], np.asarray(fields["labels"])
    if not isinstance(pictures, np.ndarray) or pictures.dtype != np.uint8 or pictures.ndim != 2:
        raise UserError(f'{where} is no batch of CIFAR-10: its "data" are no table of bytes')
    if pictures.shape[1] != _NUMBERS:
        raise UserError(
            f"{where} has pictures of {pictures.shape[1]} numbers instead of {_NUMBERS} (32 x 32 x 3)"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f'{where} is no batch of CIFAR-10: its "labels" are no list of whole numbers')
    return pictures, labels


def _from_binary(raw: bytes, where: str) -> Batch:
    if len(raw) % (1 + _NUMBERS):
        raise UserError(
            f"{where} has {len(raw)} bytes, no multiple of {1 + _NUMBERS} (a label and 32 x 32 x 3 numbers): it is "
            "truncated, or has pictures of another size"
        )
    table = np.frombuffer(raw, np.uint8).reshape(-1, 1 + _NUMBERS)
    return table[:, 1:], table[:, 0].astype(np.int64)


_FORMS = (
    _Form("cifar-10-batches-py", "cifar-10-python.tar.gz", "", _from_pickle),
    _Form("cifar-10-batches-bin", "cifar-10-binary.tar.gz", ".bin", _from_binary),
)
