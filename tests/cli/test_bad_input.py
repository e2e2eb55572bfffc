"""What users do wrong, through the commands: one line that says what and where, exit status 2, nothing half-written."""

import json
import os

import pytest
from PIL import Image

from t2t_vqem.cli import datagen, trainer

SMALL = {
    "latent_nat.dim": 8,
    "latent_nat.filter_size": 8,
    "latent_nat.heads": 2,
    "latent_nat.encoder_layers": 1,
    "latent_nat.predictor_layers": 1,
    "latent_nat.decoder_layers": 1,
    "latent_nat.num_codes": 4,
    "latent_nat.num_compress_steps": 1,
}


def refused(done, *words):
    """The command ended with one line on stderr that holds all of `words`."""
    assert done.status == 2, done.err[-2000:]
    last = done.err.splitlines()[-1]
    assert "error: " in last
    assert "Traceback" not in done.err
    for word in words:
        assert word in last


@pytest.fixture
def corpus(tmp_path):
    """A folder with a small text_pair corpus, and the flags that name it."""
    for split, size in (("train", 60), ("dev", 5)):
        for side in ("en", "de"):
            lines = [f"{side} {i % 7} {i % 5} {i}\n" for i in range(size)]
            (tmp_path / f"{split}.{side}").write_text("".join(lines), encoding="utf-8")
    bindings = ["text_pair.vocab_size = 60"]
    for split in ("train", "dev"):
        bindings += [f'text_pair.{split}_source = "{split}.en"', f'text_pair.{split}_target = "{split}.de"']
    flags = [f"--gin_param={binding}" for binding in bindings]
    return tmp_path, [
        "--problem=text_pair",
        f"--source_dir={tmp_path}",
        f"--data_dir={tmp_path}/data",
        *flags,
    ]


@pytest.fixture
def train(call, corpus):
    """A function (flags) that calls bin/trainer on the corpus with a model as small as can be."""
    small = [f"--gin_param={name} = {value}" for name, value in SMALL.items()]

    def train(*flags, model_dir="run"):
        common = [*corpus[1], "--model=latent_nat", *small, f"--model_dir={corpus[0] / model_dir}"]
        return call(trainer, *common, *flags)

    return train


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--problem=text_pare"], ["text_pare", "text_pair"]),
        (["--model=latent_not"], ["latent_not", "latent_nat"]),
        (["--gin_param=latent_nat.bottleneck = 'soft_me'"], ["soft_me", "soft_em"]),
        (["--gin_param=soft_em.num_sampels = 3"], ["num_sampels", "num_samples"]),
        (["--gin_param=soft_me.num_samples = 3"], ["soft_me"]),
        (["--gin_file=soft_me.gin"], ["soft_me.gin", "soft_em.gin"]),
        (["--trian_steps=3"], ["trian_steps", "train_steps"]),
        (["--gin_param=latent_nat.num_codes = 1"], ["num_codes", "1"]),
        (["--gin_param=soft_em.num_samples = 0"], ["num_samples", "0"]),
        (["--gin_param=latent_nat.num_compress_steps = -1"], ["num_compress_steps", "-1"]),
        (["--gin_param=train.batch_tokens = 0"], ["batch_tokens"]),
        (["--strategy=tpu"], ["TPU"]),
        (["--strategy=all"], ["strategy"]),
        (["--usr_dir=/nowhere"], ["/nowhere"]),
        (["--seed=-1"], ["seed"]),
        (["--gin_param=decode.lm_weight = 0.3"], ["decode.lm_weight", "writes no blanks"]),
        (
            ["--gin_param=decode.lm_weight = 0.3", "--gin_param=latent_nat.ctc_places = 2"],
            ["decode.lm_weight", "bin/evaluator"],
        ),
        (["--gin_param=decode.seed = 3"], ["decode.seed", "decode.temperature"]),
    ],
)
def test_the_trainer_refuses(train, corpus, flags, words):
    refused(train(*flags), *words)
    assert not os.path.exists(corpus[0] / "data")
    assert not os.path.exists(corpus[0] / "run")


def test_another_problems_run_is_left_alone(train, call, corpus):
    (corpus[0] / "run").mkdir()
    run = '{"problem": "toy_ende", "model": "latent_nat", "data_dir": "", "usr_dir": null, "seed": 0,'
    run += ' "vocabulary_hash": "", "data_fingerprint": ""}'
    (corpus[0] / "run" / "run.json").write_text(run)
    refused(train(), "toy_ende", "text_pair", "--model_dir")
    assert os.listdir(corpus[0] / "run") == ["run.json"]


def test_a_damaged_shard_is_named(train, call, corpus):
    assert call(datagen, *corpus[1]).status == 0
    shard = next((corpus[0] / "data" / "text_pair").glob("train-*.tfrecord"))
    content = shard.read_bytes()
    shard.write_bytes(content[:50] + bytes([content[50] ^ 4]) + content[51:])
    refused(train(), shard.name)
    shard.write_bytes(content[:-7])
    refused(train(), shard.name)
    assert not os.path.exists(corpus[0] / "run")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("train.de", None, ["train.de"]),
        ("train.de", "de\n" * 59, ["train.de", "59", "60"]),
        ("train.en", b"en\n" * 10 + b"\xff\n" + b"en\n" * 49, ["train.en", "line 11"]),
        ("dev.en", "", ["dev.en", "empty"]),
    ],
)
def test_datagen_names_what_is_wrong_with_a_file(call, corpus, file, content, words):
    folder, flags = corpus
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(call(datagen, *flags), *words)
    assert not (folder / "data" / "text_pair").exists()


def test_a_model_of_text_refuses_a_problem_of_pictures(call, tmp_path):
    flags = [f"--data_dir={tmp_path}/data", f"--model_dir={tmp_path}/run"]
    for more in ([], ["--show_config"]):
        done = call(trainer, "--problem=cifar10", "--model=transformer", *flags, *more)
        refused(done, "the model transformer works on text, and the problem cifar10 is one of images")
    refused(call(trainer, "--problem=cifar10_distill", "--model=nat", *flags), "distillation", "cifar10")
    assert not list(tmp_path.iterdir())


def test_datagen_of_pictures_names_what_is_wrong_and_shows_what_is_right(call, tmp_path, caplog):
    for number in range(30):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("none")
    flags = [
        "--problem=image_folder",
        f"--source_dir={tmp_path}",
        f"--data_dir={tmp_path}/.data",
        "--inspect=2",
    ]
    flags += ["--gin_param=image_folder.val_share = 0.2", "--gin_param=image_folder.test_share = 0.2"]
    refused(call(datagen, *flags), f"{tmp_path}/notes.txt", "skip_bad")
    refused(call(datagen, *flags, "--gin_param=image_folder.skip_bda = True"), "skip_bda", "skip_bad")
    refused(call(datagen, *flags, "--problem=cifar10"), str(tmp_path), "cifar-10-batches-py")
    with caplog.at_level("WARNING", "absl"):
        done = call(datagen, *flags, "--gin_param=image_folder.skip_bad = True")
    assert done.status == 0
    assert any(text.endswith("1 files that are no such pictures are left out") for text in caplog.messages)
    *lines, last = done.out.splitlines()
    assert [line.split(",")[:2] for line in lines] == [[f"val {i}: label 0", " 8 x 8 x 3"] for i in range(2)]
    report = json.loads(last)
    assert (report["image_shape"], report["num_classes"]) == ([8, 8, 3], 1)
    assert sum(report["examples"].values()) == 30


def test_datagen_refuses_an_unknown_split_and_problem(call, corpus):
    refused(call(datagen, *corpus[1], "--split=tset"), "tset")
    refused(call(datagen, "--problem=toy_end", "--data_dir=x"), "toy_end", "toy_ende")


def test_a_folder_that_cannot_be_written_is_named(call, corpus):
    (corpus[0] / "file").write_text("")
    refused(call(datagen, *corpus[1], f"--data_dir={corpus[0]}/file"), str(corpus[0] / "file"))
    refused(call(datagen, *corpus[1], "--data_dir=/proc/nowhere"), "/proc/nowhere")
