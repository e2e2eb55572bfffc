"""Problems made of pairs of text files: line i of one is the translation of line i of the other."""

from __future__ import annotations

import abc
import gzip
import html
import io
import os
import re
import zlib
from collections.abc import Iterator

from t2t_vqem.errors import UserError
from t2t_vqem.problems.translation import TranslationProblem

_GZIP_MAGIC = b"\x1f\x8b"
_SEGMENT = re.compile(r"<seg[^>]*>\s*(.*?)\s*</seg>")  # of the SGML that WMT publishes test sets in


class TextFilesProblem(TranslationProblem):
    """A translation problem whose splits are pairs of text files, gzipped or not."""

    @abc.abstractmethod
    def files(self, split: str) -> list[tuple[str, str]]:
        """Returns the (source, target) paths that make up a split, in order."""

    def source_files(self) -> list[str]:
        return sorted({path for split in self.splits for pair in self.files(split) for path in pair})

    def samples(self, split: str) -> Iterator[tuple[str, str]]:
        for source, target in self.files(split):
            yield from read_pairs(source, target)

    def in_source_dir(self, *stems: str) -> str:
        """Returns the path of the first of these files, plain or ending in .gz, that `source_dir` holds.

        Raises:
          UserError: there is no `source_dir`, or none of them is in it.
        """
        if self.source_dir is None:
            raise UserError(f"{self.name} is made from files; give --source_dir, which holds {stems[0]}[.gz]")
        path = find(self.source_dir, *stems)
        if path is None:
            wanted = " or ".join(f"{stem}[.gz]" for stem in stems)
            raise UserError(f"{self.source_dir} holds no {wanted}; is --source_dir right?")
        return path


def find(folder: str, *stems: str) -> str | None:
    """Returns the path of the first of these files, plain or ending in .gz, in the folder, or None."""
    paths = (os.path.join(folder, stem + ending) for stem in stems for ending in ("", ".gz"))
    return next((path for path in paths if os.path.isfile(path)), None)


def read_pairs(source: str, target: str) -> Iterator[tuple[str, str]]:
    """Yields the lines of two files side by side.

    Raises:
      UserError: a file is missing, unreadable, empty, not UTF-8 (file and line are named) or has more lines
        than the other.
    """
    sources, targets = read_lines(source), read_lines(target)
    count = 0
    for line in sources:
        other = next(targets, None)
        if other is None:
            break
        count += 1
        yield line, other
    else:
        if next(targets, None) is None:
            return
        raise _unequal(source, count, target, count + 1 + sum(1 for _ in targets))
    raise _unequal(source, count + 1 + sum(1 for _ in sources), target, count)


def read_lines(path: str) -> Iterator[str]:
    """Yields the lines of a UTF-8 file without their ends; whether it is gzipped its first bytes tell."""
    number = 0
    sgml = path.removesuffix(".gz").endswith(".sgm")
    try:
        with open(path, "rb") as raw:
            packed = raw.peek(2)[:2] == _GZIP_MAGIC
            file = io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 18) if packed else raw
            for number, line in enumerate(file, 1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if not sgml:
                    yield text
                elif segment := _SEGMENT.search(text):
                    yield html.unescape(segment[1])
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UserError(f"{path}, line {number}: not UTF-8 (byte 0x{byte:02x} at {error.start})") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is a damaged gzip file: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; is --source_dir right?") from error
    if number == 0:
        raise UserError(f"{path} is empty")


def _unequal(source: str, source_lines: int, target: str, target_lines: int) -> UserError:
    return UserError(
        f"{source} has {source_lines} lines but {target} has {target_lines}; line i of one must be the "
        "translation of line i of the other"
    )
