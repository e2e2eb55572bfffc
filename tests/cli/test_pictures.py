"""bin/evaluator and bin/decoder on a model of pictures and a prior over its codes."""

import json
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2t_vqem import config, registry
from t2t_vqem.cli import codebook, decoder, encoder, evaluator
from t2t_vqem.problems.image import ImageProblem
from t2t_vqem.training import checkpoints, runs
from t2t_vqem.training.train_config import TrainConfig

SHAPE, CLASSES = (8, 10, 3), 2
MODELS = {
    "vqvae": {"codebooks": 2, "num_codes": 16, "code_dim": 4, "residual_units": 1, "dim": 8, "top_dim": 8},
    "latent_prior": {"dim": 8, "filter_size": 8, "heads": 2, "layers": 1, "slot_layers": 1, "slot_dim": 8},
}


@registry.problems.register("cli_noise")
class Noise(ImageProblem):
    image_shape, num_classes = SHAPE, CLASSES

    def samples(self, split):
        noise = np.random.default_rng(len(split)).integers(0, 256, [5, *SHAPE]).astype(np.uint8)
        return iter([(picture, number % CLASSES) for number, picture in enumerate(noise)])


def write_run(folder, data_dir, problem_name, name, seed=0, **hparams):
    """Makes a run of step 7 whose weights are random."""
    bindings = [f"{name}.{key} = {value!r}" for key, value in (MODELS[name] | hparams).items()]
    config.parse([], [*bindings, "train.batch_tokens = 960"])
    TrainConfig()  # so that the operative configuration holds it
    problem = registry.problems.get(problem_name)()
    dimensions = problem.dimensions(data_dir)
    model = registry.models.get(name)(**dimensions)
    model.build_weights()
    for number, variable in enumerate(model.variables):
        if variable.dtype == "float32":
            drawn = tf.random.stateless_normal(variable.shape, [number, seed])
            variable.assign(
                tf.abs(variable + 0.3 * drawn) if "counts" in variable.name else variable + 0.3 * drawn
            )
    names = {"problem": problem_name, "model": name, "data_dir": data_dir, "usr_dir": None, "seed": 0}
    about = {"vocabulary_hash": None, "data_fingerprint": problem.fingerprint(data_dir)}
    runs.write_run(str(folder), config.RunMetadata(**names, **about, dimensions=dimensions), None)
    checkpoints.keep_best(str(folder), model, checkpoints.Best(7, "bits_per_dim", 1.0))
    return str(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders: of data, of a model, of another whose weights differ, and of one that is told the class."""
    root = tmp_path_factory.mktemp("runs")
    data = str(root / "data")
    Noise().generate(data, workers=1)
    kinds = {"model": {}, "other": {"seed": 1}, "conditional": {"class_conditional": True}}
    kinds["hard"] = {"bottleneck": "hard_em"}
    folders = {kind: write_run(root / kind, data, "cli_noise", "vqvae", **how) for kind, how in kinds.items()}
    return types.SimpleNamespace(root=root, data=data, **folders)


@pytest.fixture
def prior(made, call):
    """The folder of a prior over the codes of `made.model`."""
    done = call(encoder, f"--model_dir={made.model}")
    assert done.status == 0, done.err[-3000:]
    return write_run(made.root / "prior", made.data, "cli_noise_codes", "latent_prior")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for number, (picture, _) in enumerate(Noise().samples("test")):
        Image.fromarray(picture).save(tmp_path / "in" / f"p{number}.png")
    return tmp_path / "in"


def test_what_a_model_is_cannot_be_changed_unnoticed(call, made, caplog):
    other = (f"--model_dir={made.model}", "--gin_param=codebook.norm = 1.0")
    done = call(encoder, *other)
    assert (done.status, done.out) == (2, "")
    assert "codebook.norm is 32.0 there and 1.0 here" in done.err
    done = call(evaluator, *other, "--split=test")
    assert done.status == 0, done.err[-3000:]
    assert "not as the run was trained: codebook.norm is 32.0 there and 1.0 here" in caplog.messages
    assert json.loads(done.out.splitlines()[-1])["bindings"] == "codebook.norm = 1.0"


def test_a_split_is_judged_with_and_without_a_prior(call, made, prior):
    plain = call(evaluator, f"--model_dir={made.model}", "--split=val,test")
    assert plain.status == 0, plain.err[-3000:]
    val, test = (json.loads(line) for line in plain.out.splitlines()[-2:])
    assert (val["split"], test["split"]) == ("val", "test")
    assert test["prior_bits_per_dim"] == pytest.approx(2 * 3 * 2 * 4 / 240)
    judged = call(evaluator, f"--model_dir={made.model}", "--split=test", f"--prior_model_dir={prior}")
    assert judged.status == 0, judged.err[-3000:]
    told = json.loads(judged.out.splitlines()[-1])
    assert told["reconstruction_bits_per_dim"] == pytest.approx(test["reconstruction_bits_per_dim"], rel=1e-4)
    assert told["prior_bits_per_dim"] != test["prior_bits_per_dim"]
    assert told["bits_per_dim_signature"].endswith("prior:latent_prior@7")
    pictures = made.root / "model" / "pictures"
    assert {"test_reconstructions.png", "test_samples_prior.png", "val_patches.png"} <= {
        path.name for path in pictures.iterdir()
    }
    results = json.loads((made.root / "model" / "results.json").read_text())
    assert {"eval/val", "eval/test", "eval/test (prior latent_prior@7, prior)"} <= results.keys()


def test_a_prior_of_other_weights_is_refused(call, made, prior):
    done = call(evaluator, f"--model_dir={made.other}", f"--prior_model_dir={prior}")
    assert done.status == 2
    assert "is one of the codes of other weights (step 7) than these" in done.err


def test_codes_made_anew_tell_nothing_of_the_prior_that_learnt_the_old(call, made, prior, caplog):
    run = json.loads((made.root / "prior" / "run.json").read_text())
    (made.root / "prior" / "run.json").write_text(json.dumps(run | {"data_fingerprint": "of old"}))
    done = call(evaluator, f"--model_dir={made.model}", f"--prior_model_dir={prior}")
    assert done.status == 0
    assert "cannot be told: the codes that it learnt are not in" in caplog.text


def test_a_prior_of_drawn_codes_gives_the_bound_of_the_posterior(call, made, tmp_path):
    data = str(tmp_path / "data")
    shutil.copytree(f"{made.data}/cli_noise", f"{data}/cli_noise")
    flags = (f"--model_dir={made.model}", f"--data_dir={data}")
    done = call(encoder, *flags, "--drawn")
    assert done.status == 0, done.err[-3000:]
    again = call(encoder, *flags)
    assert (again.status, again.out) == (2, "")
    assert "was made otherwise: encoder.codes is drawn, not likeliest" in again.err.splitlines()[-1]
    prior = write_run(tmp_path / "prior", data, "cli_noise_codes", "latent_prior")
    judged = call(evaluator, *flags, "--split=test", f"--prior_model_dir={prior}")
    assert judged.status == 0, judged.err[-3000:]
    told = json.loads(judged.out.splitlines()[-1])
    parts = ("drawn_reconstruction", "drawn_prior", "code_entropy")
    of_picture, of_codes, entropy = (told[f"{part}_bits_per_dim"] for part in parts)
    assert entropy > 0
    assert told["drawn_bits_per_dim"] == pytest.approx(of_picture + of_codes - entropy)
    assert told["drawn_bits_per_dim_signature"] == (
        "upper bound|dims:240|codes:12, drawn|K:16|prior:latent_prior@7 of drawn codes"
    )


def test_one_code_a_picture_has_one_bound(call, made):
    done = call(evaluator, f"--model_dir={made.hard}", "--split=test")
    assert done.status == 0, done.err[-3000:]
    told = json.loads(done.out.splitlines()[-1])
    assert not [figure for figure in told if "drawn" in figure or "entropy" in figure]


def test_a_bound_given_the_class_says_so(call, made):
    done = call(evaluator, f"--model_dir={made.conditional}")
    assert json.loads(done.out.splitlines()[-1])["bits_per_dim_signature"].endswith("|given:class")


def test_a_folder_is_rebuilt(call, made, folder, tmp_path):
    done = call(decoder, f"--model_dir={made.model}", f"--input={folder}", f"--output={tmp_path / 'out'}")
    assert done.status == 0, done.err[-3000:]
    assert done.out.splitlines() == [str(tmp_path / "out" / f"p{number}.png") for number in range(5)]
    assert np.asarray(Image.open(tmp_path / "out" / "p4.png")).shape == SHAPE
    again = call(decoder, f"--model_dir={made.model}", f"--input={folder}", f"--output={tmp_path / 'out'}")
    assert again.status == 2
    assert "exists and is no empty folder" in again.err


def test_samples_are_drawn(call, made, prior, tmp_path):
    flags = [f"--model_dir={made.model}", f"--prior_model_dir={prior}", "--samples=3"]
    done = call(decoder, *flags, f"--output={tmp_path / 'out'}", "--gin_param=decode.temperature = 0.7")
    assert done.status == 0, done.err[-3000:]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--output=out"], "give --input=FOLDER to rebuild, or --samples=NUMBER to draw"),
        (["--output=out", "--samples=2"], "drawn from a prior over the codes: give it by --prior_model_dir"),
        (["--output=out", "--input=none"], 'there is no folder or picture "none"'),
        (["--input=none"], "--output is missing"),
        (["--candidates"], "--candidates works on text"),
        (
            ["--output=out", "--samples=2", "--prior_model_dir=x", "--gin_param=decode.blank_penalty = 1"],
            "pictures are drawn, not searched for; decode.blank_penalty has no use here",
        ),
    ],
)
def test_flags_that_do_not_go_together(call, made, flags, told):
    done = call(decoder, f"--model_dir={made.model}", *flags)
    assert done.status == 2
    assert told in done.err


def test_a_class_that_files_do_not_have_is_told_of(call, made, folder, tmp_path, caplog):
    flags = [f"--model_dir={made.conditional}", f"--input={folder}", f"--output={tmp_path / 'out'}"]
    done = call(decoder, *flags)
    assert done.status == 0
    assert "class-conditional and files have no class" in caplog.text


def test_a_prior_is_no_model_of_pictures(call, prior):
    done = call(decoder, f"--model_dir={prior}")
    assert done.status == 2
    assert "bin/decoder takes a prior by --prior_model_dir" in done.err


def test_the_codebook_report(call, made):
    done = call(codebook, f"--model_dir={made.model}")
    assert done.status == 0, done.err[-3000:]
    figures = json.loads(done.out.splitlines()[-1])
    scores = json.loads(call(evaluator, f"--model_dir={made.model}").out.splitlines()[-1])
    for name in ("codebook_perplexity", "perplexity_per_code", "live_codes", "latents"):
        assert figures[name] == scores[name], "one figure, one value, whoever tells it"
    for name in ("effective_codes", "quantization_error"):  # of the same rows in batches of other sizes
        assert figures[name] == pytest.approx(scores[name], rel=1e-5)
    assert figures["swap_levels_inside"] > 0
    folder = made.root / "model" / "codebook"
    report = json.loads((folder / "codebook.json").read_text())
    assert report["pixels_per_code"] == [4, 4]  # 8 x 10 pixels, of which the last column has two alone
    assert [sum(slot["counts"]) for slot in report["slots"]] == [figures["latents"]] * 2
    assert "mean patch" in (folder / "codebook.html").read_text()
    assert (folder / "projector" / "sprites_1.png").exists()


def test_codes_of_codes_have_no_codebook_report(call, prior):
    done = call(codebook, f"--model_dir={prior}")
    assert (done.status, done.out) == (2, "")
    assert "bin/codebook works on text and images" in done.err.splitlines()[-1]
