"""Lines of text from files, pipes and terminals, as a translator reads them, and to files.

A line ends at a newline byte and nowhere else: `str.splitlines` also breaks at U+2028, U+0085 and other marks
that occur inside sentences, and then outputs no longer stand beside their inputs.
"""

import contextlib
import gzip
import itertools
import os
import select
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator

from t2t_vqem.errors import UserError

_CHUNK = 1 << 16  # bytes, the capacity of a Linux pipe


def _line(raw: bytes, name: str, number: int) -> str:
    """Decodes a line without its end (LF or CRLF). Raises UserError naming the file and the line's number."""
    try:
        text = raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}, line {number}: not UTF-8 text ({error.reason} at byte {error.start + 1})"
        ) from None
    return text.removeprefix("\ufeff") if number == 1 else text


def windows(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yields `lines` in lists of `size`, the last perhaps shorter."""
    lines = iter(lines)
    return iter(lambda: list(itertools.islice(lines, size)), [])


class TextInput:
    """An open input: a regular file, gzipped or not, or a stream (pipe, terminal).

    A regular file can be checked before it is read, so that a line which is not UTF-8 is found before
    anything is translated; a stream cannot, and fails where the bad line stands.

    Attributes:
      name: what errors call it.
      is_regular, is_terminal: what it is; a pipe is neither.
    """

    def __init__(self, path: str | None = None):
        """Opens `path`, or the standard input. Raises UserError if it cannot be read."""
        self.name = path or "standard input"
        try:
            self._file = open(path or 0, "rb", closefd=path is not None)  # noqa: SIM115 (see `close`)
            mode = os.fstat(self._file.fileno()).st_mode
        except OSError as error:
            raise UserError(f"{self.name} cannot be read: {error.strerror}") from None
        self.is_regular = stat.S_ISREG(mode)
        self.is_terminal = self._file.isatty()
        self._start = self._file.tell() if self.is_regular else 0

    def check(self) -> int:
        """Returns the number of lines of a regular file. Raises UserError on the first that is not UTF-8."""
        return sum(1 for _ in self.lines())

    def lines(self) -> Iterator[str]:
        """Yields the lines of a regular file from its start. Raises UserError naming file and line."""
        number = 0
        try:
            self._file.seek(self._start)
            zipped = self._file.read(2) == b"\x1f\x8b"  # never the start of UTF-8 text
            self._file.seek(self._start)
            for number, raw in enumerate(gzip.GzipFile(fileobj=self._file) if zipped else self._file, 1):
                yield _line(raw, self.name, number)
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(f"{self.name} cannot be read after line {number}: {error}") from None

    def windows(
        self, window_lines: int, before_wait: Callable[[], None] | None = None
    ) -> Iterator[list[str]]:
        """Yields the lines of a stream, as many together as have arrived, at most `window_lines`.

        Waits only while it holds no complete line, so that a process which writes a line and waits for the
        answer gets it; a fast writer fills the pipe while its last lines are translated. `before_wait` is
        called before each wait: the prompt. Raises UserError naming the stream and the line.
        """
        pending, number, ended = b"", 0, False
        while not ended or pending:
            if before_wait and b"\n" not in pending and not ended:
                before_wait()
            while not ended and (
                b"\n" not in pending or (pending.count(b"\n") < window_lines and self._ready())
            ):
                chunk = self._file.raw.read(_CHUNK)
                pending, ended = pending + chunk, not chunk
            *complete, pending = pending.split(b"\n", window_lines)
            if ended and b"\n" not in pending and pending:  # the last line has no end
                complete, pending = [*complete, pending], b""
            window = [_line(raw, self.name, number + i) for i, raw in enumerate(complete, 1)]
            number += len(window)
            if window:
                yield window

    def _ready(self) -> bool:
        return bool(select.select([self._file], [], [], 0)[0])

    def close(self) -> None:
        self._file.close()


class NewFile:
    """A file of lines that appears whole, when the block it is used in ends, or, on an error, not at all.

    Like `files.write_atomic`, for what is written bit by bit. Every failure to write is a UserError.
    """

    def __init__(self, path: str):
        """Begins the file, under a temporary name beside `path`, so that a folder without room or rights is
        found before any work is done."""
        self._path = os.path.realpath(path)
        folder, name = os.path.split(self._path)
        self._temporary = None
        with self._writing():
            if os.path.exists(path) and not os.path.isfile(
                path
            ):  # a pipe or /dev/null; open refuses a folder
                self._file = open(path, "wb")  # noqa: SIM115 (see `__exit__`)
                return
            os.makedirs(folder, exist_ok=True)
            handle, self._temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
            self._file = os.fdopen(handle, "wb")

    def write(self, lines: Iterable[str]) -> None:
        """Adds lines; each gets its line end."""
        with self._writing():
            self._file.writelines(f"{line}\n".encode() for line in lines)

    def __enter__(self) -> "NewFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._writing(), self._file as file:
                file.flush()
                if self._temporary and kind is None:
                    os.fsync(file.fileno())
                    umask = os.umask(0)
                    os.umask(umask)
                    os.chmod(self._temporary, 0o666 & ~umask)  # mkstemp makes a private file
                    os.replace(self._temporary, self._path)
                    self._temporary = None
        finally:
            if self._temporary:
                os.unlink(self._temporary)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror or error}") from error
