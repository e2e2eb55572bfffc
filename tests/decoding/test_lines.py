import gzip
import os
import threading

import pytest

from t2t_vqem.decoding.lines import NewFile, TextInput, windows
from t2t_vqem.errors import UserError


def read(path):
    source = TextInput(str(path))
    assert source.is_regular
    count = source.check()
    found = list(source.lines())
    assert count == len(found)
    source.close()
    return found


@pytest.mark.parametrize("zipped", [False, True])
def test_lines_end_at_newlines_alone(tmp_path, zipped):
    raw = "\ufeffa\u2028b\u0085c\x0bd\r\n\n x \r\rlast".encode()
    path = tmp_path / "text"  # gzip is known by its contents, not by the name
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    assert read(path) == ["a\u2028b\u0085c\x0bd", "", " x \r\rlast"]


@pytest.mark.parametrize(("raw", "count"), [(b"", 0), (b"\n", 1), (b"a", 1), (b"a\n", 1), (b"a\n\n", 2)])
def test_counts(tmp_path, raw, count):
    (tmp_path / "text").write_bytes(raw)
    assert len(read(tmp_path / "text")) == count


def test_not_utf8_names_file_and_line(tmp_path):
    path = tmp_path / "latin1"
    path.write_bytes(b"gut\n\nsch\xf6n\n")
    with pytest.raises(UserError, match=r"latin1, line 3: not UTF-8 text .*byte 4"):
        TextInput(str(path)).check()


def test_truncated_gzip(tmp_path):
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(os.urandom(2000).hex().encode() + b"\n")[:-100])
    with pytest.raises(UserError, match=r"text.gz cannot be read"):
        TextInput(str(path)).check()


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="none cannot be read: No such file"):
        TextInput(str(tmp_path / "none"))
    with pytest.raises(UserError, match="Is a directory"):
        TextInput(str(tmp_path))


@pytest.fixture
def pipe():
    """A TextInput on a pipe, and the pipe's other end."""
    reader, writer = os.pipe()
    source = TextInput(f"/dev/fd/{reader}")
    os.close(reader)
    end = os.fdopen(writer, "wb", 0)
    yield source, end
    end.close()
    source.close()


def test_a_process_that_waits_for_its_answer_gets_it(pipe):
    source, end = pipe
    assert not source.is_regular
    found = source.windows(100)
    for line in ["one", "", "drei ü"]:
        end.write(f"{line}\n".encode())  # the writer now waits; a reader that waited for more would hang
        assert next(found) == [line]
    end.write(b"half a line")
    timer = threading.Timer(0.1, lambda: (end.write(b" and the rest\nno end"), end.close()))
    timer.start()
    assert [line for window in found for line in window] == ["half a line and the rest", "no end"]


def test_what_has_arrived_comes_together_up_to_the_limit(pipe):
    source, end = pipe
    end.write(b"".join(b"%d\n" % i for i in range(10)))
    end.close()
    assert list(source.windows(4)) == [list("0123"), list("4567"), list("89")]


@pytest.mark.parametrize("raw", [b"", b"\n", b"a", b"a\nb", b"a\nb\n", b"\n\n"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_pipe_and_a_file_give_the_same_lines(pipe, tmp_path, raw, size):
    source, end = pipe
    end.write(raw)
    end.close()
    (tmp_path / "text").write_bytes(raw)
    assert [line for window in source.windows(size) for line in window] == read(tmp_path / "text")


def test_a_bad_line_in_a_pipe_is_named(pipe):
    source, end = pipe
    found = source.windows(2)
    end.write(b"a\nb\nc\n\xff\n")
    assert next(found) == ["a", "b"]
    with pytest.raises(UserError, match="line 4: not UTF-8"):
        next(found)


def test_prompts_once_a_line(pipe):
    source, end = pipe
    prompts = []

    def before_wait():
        prompts.append(1)
        end.write(b"line\n") if len(prompts) < 3 else end.close()

    assert list(source.windows(1, before_wait)) == [["line"], ["line"]]
    assert len(prompts) == 3


def test_windows():
    assert list(windows("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]


def test_new_file_appears_whole(tmp_path):
    path = tmp_path / "deep" / "out"
    with NewFile(str(path)) as file:
        file.write(["a", ""])
        assert not path.exists()
        file.write(["ü"])
    assert path.read_bytes() == "a\n\nü\n".encode()
    assert os.listdir(path.parent) == ["out"]


def test_new_file_leaves_the_old_one_on_an_error(tmp_path):
    path = tmp_path / "out"
    path.write_text("old")

    def fail():
        yield "new"
        raise KeyError

    with pytest.raises(KeyError), NewFile(str(path)) as file:
        file.write(fail())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_new_file_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "out", tmp_path):
        with pytest.raises(UserError, match="cannot write"):
            NewFile(str(path))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk():
    with pytest.raises(UserError, match="No space left"), NewFile("/dev/full") as file:
        file.write(["a"])
    assert os.path.exists("/dev/full"), "a device is written to, not replaced"
