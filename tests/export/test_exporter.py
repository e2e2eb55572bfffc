"""What surrounds every format: the folder that appears whole, the sample, the comparison."""

import os
import subprocess
import sys

import pytest

from t2t_vqem.errors import UserError
from t2t_vqem.export import exporter, fresh_process
from t2t_vqem.export.format import Format


class Constant(Format):
    """Writes one file and translates everything alike."""

    name = "constant"

    def write(self, run, model, folder):
        with open(os.path.join(folder, "model"), "w", encoding="utf-8") as file:
            file.write("weights")

    def translate(self, run, folder, windows):
        assert os.listdir(folder) == ["model"]
        return [["Nein"] * len(window) for window in windows]

    def details(self, run):
        return {}


def test_another_translation_is_an_error_and_leaves_nothing(make_run, tmp_path):
    words = r"11 of 11 lines .*'A man rides a red bicycle\.' became 'Nein', not '"
    with pytest.raises(UserError, match=words):
        exporter.export(make_run("latent_nat"), str(tmp_path / "out"), Constant())
    assert list(tmp_path.iterdir()) == []


def test_the_first_line_that_differs_is_named():
    windows = [["a", "b"], ["a"]]
    exporter.compare(windows, windows, windows)
    with pytest.raises(UserError, match=r"1 of 3 lines .*'b' became 'c', not 'b'"):
        exporter.compare(windows, windows, [["a", "c"], ["a"]])


class Known:
    """A problem whose data are there."""

    dev_split = "val"

    def texts(self, split, data_dir):
        return [f"{split} {number}" for number in range(100)], []


def test_the_sample_is_of_the_data_where_they_are(make_run):
    run = make_run("latent_nat")
    windows, origin = exporter.sample(run)
    assert origin == "built in"
    assert windows[0][0] == "A man rides a red bicycle."
    windows, origin = exporter.sample(run._replace(problem=Known()))
    assert origin == "toy_ende val"
    assert windows[0][:64] == [f"val {number}" for number in range(64)]
    assert windows[1:] == [[line] for line in windows[0][:3]]
    assert "" in windows[0]
    assert max(map(len, run.vocabulary.encode(windows[0]))) > 20


def test_the_fresh_process_does_not_know_the_package():
    code = (
        "import runpy, sys; sys.argv = ['fresh_process', 'nothing']\n"
        "class Tensorflow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'tensorflow':\n"
        "            import t2t_vqem.errors\n"
        "sys.meta_path.insert(0, Tensorflow())\n"
        f"runpy.run_path({fresh_process.__file__!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: No module named 't2t_vqem")
