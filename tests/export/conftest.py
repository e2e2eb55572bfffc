"""Runs in memory, of every translation model, as small as can be, with weights far from their start."""

import pytest
import tensorflow as tf

from t2t_vqem import config, registry
from t2t_vqem.problems import vocabulary
from t2t_vqem.training import runs, strategy
from t2t_vqem.training.train_config import TrainConfig

CORPUS = [
    "A man rides a red bicycle past two dogs that play in the snow .",
    "Ein Lehrer gibt dem Kind ein rotes Buch – „Äpfel“ und Öl !",
]
SMALL = {
    "dim": 16,
    "filter_size": 16,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "predictor_layers": 1,
    "num_codes": 6,
    "num_compress_steps": 1,
    "dropout": 0.0,
}
# With these standard deviations outputs are long and differ from source to source.
SPREAD = {"table": 1.0, "gamma": 1.0, "kernel": 0.5}


@pytest.fixture(scope="module")
def make_run():
    """A function (name of a model, its computing type) -> Run, whose data are not there."""
    pieces = vocabulary.Vocabulary(vocabulary.train(CORPUS * 20, 80))

    def make(name, dtype="float32"):
        build = registry.models.get(name)
        small = {key: value for key, value in SMALL.items() if key in registry.named_parameters(build)}
        with strategy.dtype_policy(dtype):
            model = build(vocab_size=pieces.size, **small)
            model.build_weights()
        for number, variable in enumerate(model.trainable_variables):
            noise = tf.random.stateless_normal(variable.shape, [number, 1])
            variable.assign(noise * SPREAD.get(variable.name, 0.1))
        names = {"problem": "toy_ende", "model": name, "data_dir": "gone", "usr_dir": None, "seed": 0}
        metadata = config.RunMetadata(**names, vocabulary_hash=pieces.hash, data_fingerprint="")
        trained = TrainConfig(boundaries=(6, 12, 20), batch_tokens=40, dtype=dtype)
        return runs.Run(registry.problems.get("toy_ende")(), model, pieces, metadata, trained, 7)

    return make
