"""The file that bin/codec writes: compressed codes, what they were made with, and checksums.

Little endian, without padding; version 1:

    bytes  field
    4      magic: 89 56 51 43
    1      version
    6      height, width and channels of a picture
    6      height, width and slots of its codes
    4      K, the codes that a slot chooses from
    1      rows, the pictures that are coded side by side
    8      fingerprint of the image model
    8      fingerprint of the prior; zeros where there is none
    4      CRC-32 of all codes, as int32
    4      length of the names
    8      length of the payload
    -      names of model, prior and pictures, separated by zero bytes and deflated
    -      payload, which `coding` explains
    4      CRC-32 of all bytes before
"""

import os
import struct
import zlib
from typing import NamedTuple

from t2t_vqem.errors import UserError

_MAGIC, _VERSION = b"\x89VQC", 1
_PREFIX = struct.Struct("<4sB")
_FIXED = struct.Struct("<3H3HIB8s8sIIQ")
_CHECKSUM = struct.Struct("<I")
_WORD = 4  # a payload is made of words of so many bytes


class Maker(NamedTuple):
    """A model that a file depends on.

    Attributes:
      name: for messages: which model, of which step.
      fingerprint: 8 bytes that tell its weights from any others.
    """

    name: str
    fingerprint: bytes


UNIFORM = Maker("no prior", bytes(8))
"""Stands for the prior where all codes are equally likely."""


class Container(NamedTuple):
    """What a file holds.

    Attributes:
      image_shape: (height, width, channels) of each picture.
      code_shape: (height, width, slots) of each picture's codes.
      num_codes: codes are 0 .. num_codes - 1.
      rows: pictures that are coded side by side.
      model: the image model.
      prior: `UNIFORM` where all codes are equally likely.
      names: of the pictures, without folder and ending.
      codes_crc: of the codes of all pictures.
      payload: the compressed codes.
    """

    image_shape: tuple[int, int, int]
    code_shape: tuple[int, int, int]
    num_codes: int
    rows: int
    model: Maker
    prior: Maker
    names: tuple[str, ...]
    codes_crc: int
    payload: bytes

    def pack(self) -> bytes:
        """Returns the bytes of the file."""
        texts = (self.model.name, self.prior.name, *self.names)
        names = zlib.compress(b"\0".join(map(os.fsencode, texts)), 9)
        fixed = _FIXED.pack(
            *self.image_shape,
            *self.code_shape,
            self.num_codes,
            self.rows,
            self.model.fingerprint,
            self.prior.fingerprint,
            self.codes_crc,
            len(names),
            len(self.payload),
        )
        data = _PREFIX.pack(_MAGIC, _VERSION) + fixed + names + self.payload
        return data + _CHECKSUM.pack(zlib.crc32(data))


def unpack(data: bytes, path: str) -> Container:
    """Returns what the bytes of the file `path` hold.

    Raises:
      UserError: they are of another kind or version, too few or too many, or changed.
    """
    if not _MAGIC.startswith(data[: len(_MAGIC)]):
        raise UserError(f"{path} was not written by bin/codec encode")
    start = _PREFIX.size + _FIXED.size
    if len(data) < start:
        raise _truncated(path)
    version = _PREFIX.unpack_from(data)[1]
    if version != _VERSION:
        raise UserError(f"{path} is of version {version} of the format, and this program reads {_VERSION}")
    fields = _FIXED.unpack_from(data, _PREFIX.size)
    num_codes, rows, model, prior, codes_crc, names_size, payload_size = fields[6:]
    middle, end = start + names_size, start + names_size + payload_size
    if len(data) < end + _CHECKSUM.size:
        raise _truncated(path)
    if data[end:] != _CHECKSUM.pack(zlib.crc32(data[:end])):
        raise _damaged(path)
    try:
        model_name, prior_name, *names = os.fsdecode(zlib.decompress(data[start:middle])).split("\0")
    except (zlib.error, ValueError):
        raise _damaged(path) from None
    # The checksum holds, so this is for files made by hand: they must not write outside of the output folder.
    plain = all(name and name == os.path.basename(name) for name in names)
    if not plain or len(set(names)) < len(names) or not rows or payload_size % _WORD:
        raise _damaged(path)
    return Container(
        image_shape=fields[:3],
        code_shape=fields[3:6],
        num_codes=num_codes,
        rows=rows,
        model=Maker(model_name, model),
        prior=Maker(prior_name, prior),
        names=tuple(names),
        codes_crc=codes_crc,
        payload=data[middle:end],
    )


def _truncated(path: str) -> UserError:
    return UserError(f"{path} is truncated: its end is missing; copy or download it again")


def _damaged(path: str) -> UserError:
    return UserError(
        f"{path} is damaged: its bytes are not those that were written; copy or download it again"
    )
