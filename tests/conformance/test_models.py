"""Every registered translation model through the same checks; a new one joins by one row of MODELS."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.training.optimizer import Adam, schedule
from t2t_vqem.training.step import TrainStep

VOCAB = 30
STACK = {"dim": 8, "filter_size": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.1}
LATENT = {"num_codes": 8, "num_compress_steps": 1, "predictor_layers": 1, "reveal_steps": 4}
MODELS = {  # name[, variant] -> hparams
    "latent_nat": STACK | LATENT,
    "latent_nat, product": STACK | LATENT | {"bottleneck": "product"},
    "latent_nat, ctc": STACK | LATENT | {"ctc_places": 2},
    "latent_nat, ctc from the source": STACK
    | LATENT
    | {"ctc_places": 2, "ctc_from_source": True, "reveal": 0.0, "guessed": 0.5},
    "nat": STACK,
    "nat_ctc": STACK,
    "transformer": STACK,
}


def make(name):
    keras.utils.set_random_seed(5)
    model = registry.models.get(name.split(",")[0])(VOCAB, **MODELS[name])
    model.build_weights()
    return model


def features(rows=4, length=6):
    """Lengths from 2 to `length`, eos at the end."""
    draw = np.random.default_rng(0)
    batch = {}
    for side in ("inputs", "targets"):
        ids = draw.integers(3, VOCAB, [rows, length])
        for row in range(rows):
            end = 1 + row % (length - 1)
            ids[row, end], ids[row, end + 1 :] = 1, 0
        batch[side] = tf.constant(ids, tf.int32)
    return batch


def test_every_translation_model_has_a_row():
    text = {name for name in registry.models._builtins if registry.models.get(name).content == "text"}
    assert text == {name.split(",")[0] for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_no_loss(name):
    """Neither columns of padding nor whole rows of it, as fill the last batch of an evaluation."""
    model, batch = make(name), features()
    padded = {side: tf.pad(ids, [[0, 2], [0, 2]]) for side, ids in batch.items()}
    plain, other = model(batch), model(padded)
    assert float(plain.weight) == float(other.weight) > 0
    for term, same in zip(plain.losses.values(), other.losses.values(), strict=True):
        np.testing.assert_allclose(term.sum, same.sum, rtol=1e-4)
        assert float(term.weight) == float(same.weight)


@pytest.mark.parametrize("name", MODELS)
def test_inference_keeps_its_contract_in_a_graph_of_any_shape(name):
    model, batch = make(name), features()
    signature = [tf.TensorSpec([None, None], tf.int32)]
    infer = tf.function(lambda ids: model.infer({"inputs": ids}), input_signature=signature)
    found = {key: value.numpy() for key, value in infer(batch["inputs"]).items()}
    assert found["outputs"].dtype == np.int32
    assert found["candidates"].shape == (4, 1, found["outputs"].shape[1])
    assert found["scores"].shape == (4, 1)
    assert found["calls"].shape == ()
    assert found["calls"] >= 1
    for ids in found["outputs"].tolist():  # nothing after the first eos
        end = ids.index(1) if 1 in ids else len(ids)
        assert not any(ids[end + 1 :])
    alone = infer(batch["inputs"][2:3, :4])["outputs"].numpy()[0]
    np.testing.assert_array_equal(np.trim_zeros(alone), np.trim_zeros(found["outputs"][2]))


@pytest.mark.parametrize(
    "name", [name for name in MODELS if name != "latent_nat"]
)  # tests/training has that one
def test_micro_batches_add_up_to_the_batch(name):
    after = []
    for micro_batches in (1, 2):
        model = make(name)
        variables = [variable.value for variable in model.trainable_variables]
        optimizer = Adam(schedule(1e-2, 2, "constant", 10), variables)
        step = TrainStep(
            model, optimizer, tf.distribute.get_strategy(), seed=1, micro_batches=micro_batches, clip_norm=1.0
        )
        terms = step({side: ids[None] for side, ids in features().items()})
        after.append((terms, [moment.numpy() for moment in optimizer.first]))
    (terms, moments), (other_terms, other_moments) = after
    for moment, other in zip(moments, other_moments, strict=True):
        np.testing.assert_allclose(moment, other, rtol=1e-3, atol=1e-6)
    for key, (total, weight) in terms.items():
        if key not in ("gradient_norm", "tokens"):
            np.testing.assert_allclose((total, weight), other_terms[key], rtol=1e-3, atol=1e-4, err_msg=key)
