"""bin/quickstart as a newcomer calls it, with half of the steps."""

import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[1]
BLEU = 50.0  # the stated floor: 300 of 600 steps gave 71.2 on val; a model that does not learn stays under 10


def test_quickstart_trains_to_the_stated_bleu_shows_it_and_goes_on(tmp_path):
    folders = (f"--data_dir={tmp_path / 'data'}", f"--model_dir={tmp_path / 'run'}")
    for _ in range(2):  # the second finds the first's work done
        done = subprocess.run(
            ["bin/quickstart", "--train_steps=300", *folders],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        trained, greedy, compared = reports
        assert trained["steps"] == greedy["steps"] == 300
        latent, autoregressive = compared["runs"]
        assert (latent["name"], autoregressive["name"]) == ("latent", "greedy")
        assert latent["bleu"] > BLEU
        assert latent["bleu_signature"]
        assert latent["latency_p50_ms"] > 0 < autoregressive["latency_p50_ms"]
        assert done.stdout.count("\n    ->  ") == 2
        assert f"--logdir {tmp_path / 'run'}" in done.stdout.splitlines()[-1]
