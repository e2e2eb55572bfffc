import gzip
import os
import pathlib
import subprocess
import sys

import pytest

from t2t_vqem.cli import decoder

ROOT = pathlib.Path(__file__).parents[2]
LINES = ["the old dogs", "", "  ", "a small\u2028red house", "dogs " * 100, "many green windows\r"]


def check_copied(text):
    *first, long, last, end = text.split("\n")
    assert first == ["the old dogs", "", "", "a small red house"]
    assert LINES[4].startswith(long)
    assert 20 < len(long) < 200
    assert (last, end) == ("many green windows", "")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_to_a_file(call, copy_run, tmp_path, caplog, zipped):
    raw = "\n".join(LINES).encode()
    (tmp_path / "in").write_bytes(gzip.compress(raw) if zipped else raw)
    flags = [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}"]
    done = call(decoder, f"--model_dir={copy_run.model_dir}", *flags)
    assert (done.status, done.out) == (0, "")
    check_copied((tmp_path / "out").read_bytes().decode())
    assert any("1 of 6 lines were longer than 24 tokens" in message for message in caplog.messages)


def test_a_file_to_stdout(call, copy_run, tmp_path):
    (tmp_path / "in").write_bytes("\n".join(LINES).encode())
    done = call(decoder, f"--model_dir={copy_run.model_dir}", f"--input={tmp_path / 'in'}")
    assert done.status == 0
    check_copied(done.out)


@pytest.mark.parametrize("redirected", [False, True])
def test_stdin(call, copy_run, stdin, tmp_path, redirected):
    stdin("\n".join(LINES).encode(), tmp_path / "in" if redirected else None)
    done = call(decoder, f"--model_dir={copy_run.model_dir}")
    assert done.status == 0
    check_copied(done.out)
    assert ">" not in done.err


def test_an_empty_stdin_is_no_error(call, copy_run, stdin):
    stdin(b"")
    done = call(decoder, f"--model_dir={copy_run.model_dir}")
    assert (done.status, done.out) == (0, "")


def test_prompts_on_stderr(call, copy_run, stdin):
    stdin(b"the\n\nold")
    done = call(decoder, f"--model_dir={copy_run.model_dir}", "--interactive")
    assert (done.status, done.out) == (0, "the\n\nold\n")
    assert done.err.endswith("\n")
    assert "> " in done.err


def one_line_error(done, *words):
    assert done.status == 2
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert "error: " in line
    for word in words:
        assert word in line


def test_what_is_not_utf8_writes_nothing(call, copy_run, tmp_path):
    path = tmp_path / "latin1"
    path.write_bytes(b"gut\nsch\xf6n\n")
    out = tmp_path / "out"
    for flags in ([], [f"--output={out}"]):
        done = call(decoder, f"--model_dir={copy_run.model_dir}", f"--input={path}", *flags)
        one_line_error(done, "latin1, line 2: not UTF-8")
        assert os.listdir(tmp_path) == ["latin1"]


def test_a_bad_line_in_a_pipe_leaves_no_output_file(call, copy_run, stdin, tmp_path):
    stdin(b"gut\nsch\xf6n\n")
    done = call(decoder, f"--model_dir={copy_run.model_dir}", f"--output={tmp_path / 'out'}")
    one_line_error(done, "standard input, line 2: not UTF-8")
    assert os.listdir(tmp_path) == []


def test_missing_and_empty_files(call, copy_run, tmp_path):
    (tmp_path / "empty").touch()
    model_dir = f"--model_dir={copy_run.model_dir}"
    one_line_error(call(decoder, model_dir, f"--input={tmp_path / 'none'}"), "none", "No such file")
    one_line_error(call(decoder, model_dir, f"--input={tmp_path / 'empty'}"), "empty", "nothing to translate")


def test_an_output_that_cannot_be_written_is_said_first(call, copy_run, tmp_path):
    (tmp_path / "in").write_text("a\n")
    flags = [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'in' / 'out'}"]
    one_line_error(call(decoder, f"--model_dir={copy_run.model_dir}", *flags), "cannot write")


def test_no_run_and_no_checkpoint(call, copy_run, stdin, tmp_path):
    stdin(b"a\n")
    one_line_error(call(decoder), "--model_dir is missing")
    one_line_error(call(decoder, f"--model_dir={tmp_path}"), "holds no run")
    flags = [f"--model_dir={copy_run.model_dir}", "--checkpoint=7"]
    one_line_error(call(decoder, *flags), "step 7", "42")


def test_a_process_that_waits_for_its_answer_gets_it(copy_run):
    command = [sys.executable, "-m", "t2t_vqem.cli.decoder", f"--model_dir={copy_run.model_dir}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT, **pipes) as process:
        for line in [b"the old dogs\n", b"\n", b"a house\n"]:
            process.stdin.write(line)  # and nothing more until the answer is there
            assert process.stdout.readline() == line
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0


def test_candidates_are_numbered_by_line(call, copy_run, stdin, monkeypatch):
    from t2t_vqem.decoding.translator import Translator

    monkeypatch.setattr("t2t_vqem.decoding.translator.WINDOW_LINES", 2)
    found = {"the": [(-1.0, "der"), (-2.5, "die")], "": [], "old": [(-3.0, "alt")]}
    monkeypatch.setattr(Translator, "candidates", lambda self, window: [found[line] for line in window])
    stdin(b"the\n\nold\n")
    done = call(decoder, f"--model_dir={copy_run.model_dir}", "--candidates")
    assert done.out == "1\t-1.0000\tder\n1\t-2.5000\tdie\n2\t0.0000\t\n3\t-3.0000\talt\n"


def test_a_model_without_candidates_is_named(call, copy_run, stdin):
    stdin(b"the\n")
    done = call(decoder, f"--model_dir={copy_run.model_dir}", "--candidates")
    assert done.status == 2
    assert "outputs alone" in done.err.splitlines()[-1]


def test_a_run_that_cannot_rerank_is_refused(call, copy_run, stdin):
    stdin(b"the\n")
    done = call(decoder, f"--model_dir={copy_run.model_dir}", f"--rerank_model_dir={copy_run.model_dir}")
    assert done.status == 2
    assert "give a run of transformer" in done.err
