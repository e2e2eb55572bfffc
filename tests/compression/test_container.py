"""A file of codes is what was written, or it is refused."""

import re
import struct
import zlib

import pytest

from t2t_vqem.compression.container import UNIFORM, Container, Maker, unpack
from t2t_vqem.errors import UserError

FILE = Container(
    image_shape=(32, 64, 3),
    code_shape=(8, 16, 10),
    num_codes=70_000,
    rows=2,
    model=Maker("vqvae@7", b"12345678"),
    prior=Maker("pixelcnn@9", b"abcdefgh"),
    names=("one", "zwölf", "b\udcffd"),
    codes_crc=2**32 - 1,
    payload=bytes(range(40)),
)


def again(data):
    """The bytes with a checksum that holds."""
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def test_a_file_comes_back():
    assert unpack(FILE.pack(), "x") == FILE
    assert unpack(FILE._replace(prior=UNIFORM, payload=b"").pack(), "x").prior == UNIFORM


def test_the_header_is_small():
    one = FILE._replace(names=("picture",), prior=UNIFORM, payload=b"")
    assert len(one.pack()) < 100
    many = one._replace(names=tuple(f"picture_{n:05}" for n in range(1000)))
    assert len(many.pack()) < 100 + 4 * 1000


def test_a_truncated_file_is_refused_at_every_length():
    data = FILE.pack()
    for size in range(len(data)):
        with pytest.raises(UserError, match=r"^f\.vqc is truncated"):
            unpack(data[:size], "f.vqc")


def test_a_changed_byte_is_noticed_at_every_place():
    data = FILE.pack()
    for place in range(len(data)):
        for change in (1, 0x80, 0xFF):
            changed = bytearray(data)
            changed[place] ^= change
            with pytest.raises(
                UserError, match=r"^f\.vqc (is truncated|is damaged|was not written|is of version)"
            ):
                unpack(bytes(changed), "f.vqc")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (FILE.pack() + b"\0", "is damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "was not written by bin/codec encode"),
        (b"a text", "was not written by bin/codec encode"),
        (again(FILE.pack()[:4] + b"\2" + FILE.pack()[5:]), "is of version 2 .* reads 1"),
        (FILE._replace(names=("../up",)).pack(), "is damaged"),
        (FILE._replace(names=("/etc/x",)).pack(), "is damaged"),
        (FILE._replace(names=("",)).pack(), "is damaged"),
        (FILE._replace(names=("a", "a")).pack(), "is damaged"),
        (FILE._replace(rows=0).pack(), "is damaged"),
        (FILE._replace(payload=b"123").pack(), "is damaged"),
        (again(FILE.pack().replace(zlib.compress(b"", 9)[:2], b"no")), "is damaged"),
    ],
)
def test_other_files_are_refused_and_those_made_by_hand(data, told):
    with pytest.raises(UserError, match=re.compile(f"^f.vqc {told}")):
        unpack(data, "f.vqc")
