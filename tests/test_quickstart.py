"""bin/quickstart as a newcomer calls it, with fewer steps."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[1]


def test_quickstart_trains_shows_and_goes_on(tmp_path):
    folders = (f"--data_dir={tmp_path / 'data'}", f"--model_dir={tmp_path / 'run'}")
    for steps in (20, 40):  # the second goes on from the first
        done = subprocess.run(
            ["bin/quickstart", f"--train_steps={steps}", *folders],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert '"bleu_signature"' in done.stdout
        assert '"latency_p50_ms"' in done.stdout
        assert done.stdout.count("\n    ->  ") == 2
        assert f"--logdir {tmp_path / 'run'}" in done.stdout.splitlines()[-1]
        assert f'"steps": {steps}' in done.stdout
