"""The latent translator: losses, lengths, what may and may not leak."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import registry, search
from t2t_vqem.context import Training
from t2t_vqem.errors import UserError
from t2t_vqem.layers.ctc import best_path, ctc_loss
from t2t_vqem.models.translation import until_end
from t2t_vqem.prefix_search import prefix_search

VOCAB = 30
SMALL = {
    "num_codes": 16,
    "num_compress_steps": 2,
    "dim": 8,
    "filter_size": 16,
    "heads": 2,
    "encoder_layers": 1,
    "predictor_layers": 1,
    "decoder_layers": 1,
    "dropout": 0.0,
}
FROM_SOURCE = {"ctc_places": 2, "ctc_from_source": True, "reveal": 0.0}
SHORT = {"max_length_ratio": 0.5}  # of four lengths, each of which is compiled, instead of six


def make(**overrides):
    keras.utils.set_random_seed(3)
    model = registry.models.get("latent_nat")(VOCAB, **SMALL | {"bottleneck": "hard_em"} | overrides)
    model.build_weights()
    return model


def give_birth(model):
    """Fills the codebook with codes that lie apart, so that no two are equally near."""
    codebook = model.bottleneck.codebook
    codebook.means.assign(tf.random.stateless_normal(codebook.means.shape, [1, 2]) * 2.0)
    codebook.counts.assign(tf.ones(codebook.counts.shape))


@pytest.fixture
def features():
    """Lengths 9, 4, 6 and 1 with their eos; padded to 9, which is no multiple of 2^n_c."""
    draw = np.random.default_rng(0)
    batch = {}
    for side in ("inputs", "targets"):
        ids = draw.integers(3, VOCAB, [4, 9])
        for row, length in enumerate([9, 4, 6, 1]):
            ids[row, length - 1] = 1
            ids[row, length:] = 0
        batch[side] = tf.constant(ids, tf.int32)
    return batch


def test_losses_count_tokens_and_latents_without_padding(features):
    out = make()(features)
    assert float(out.weight) == 20
    assert {name: float(term.weight) for name, term in out.losses.items()} == {
        "nll": 20.0,
        "latent_nll": 3 + 1 + 2 + 1 + 4.0,  # the latents, ceil(length / 4), and an end code each
        "commitment_loss": 3 + 1 + 2 + 1.0,
    }
    assert out.logits.shape == [4, 12, VOCAB]
    assert out.statistics["latents"] == {}


def test_what_pads_a_batch_changes_no_loss(features):
    model = make()
    give_birth(model)
    longer = {side: tf.pad(ids, [[0, 2], [0, 7]]) for side, ids in features.items()}
    left, right = model(features), model(longer)
    for name, term in left.losses.items():
        np.testing.assert_allclose(term.sum, right.losses[name].sum, rtol=1e-4, err_msg=name)
        assert float(term.weight) == float(right.losses[name].weight)


def test_the_output_length_is_the_models_own(features):
    model = make()
    give_birth(model)
    model.predictor.codes_out.bias.assign(tf.one_hot(model.predictor.end_code, 17) * 100.0)
    ended = model.infer({"inputs": features["inputs"]})
    assert not np.any(ended["outputs"])
    model.predictor.codes_out.bias.assign(tf.one_hot(model.predictor.end_code, 17) * -100.0)
    endless = model.infer({"inputs": features["inputs"]})
    lengths = tf.reduce_sum(tf.cast(endless["code_mask"], tf.int32), axis=1)
    np.testing.assert_array_equal(lengths, np.ceil((2 * np.array([9, 4, 6, 1]) + 10) / 4))


def test_outputs_end_at_their_first_eos(features):
    model = make()
    give_birth(model)
    outputs = np.asarray(model.reconstruct(features)["outputs"])
    for row in outputs:
        if 1 in row:
            assert not np.any(row[list(row).index(1) + 1 :])


def test_inference_does_not_depend_on_the_neighbours(features):
    model = make()
    give_birth(model)
    together = model.infer({"inputs": features["inputs"]})["outputs"].numpy()
    for row in range(4):
        alone = model.infer({"inputs": features["inputs"][row : row + 1]})["outputs"].numpy()[0]
        np.testing.assert_array_equal(np.trim_zeros(alone), np.trim_zeros(together[row]))


def test_the_predictor_does_not_train_the_compressor(features):
    model = make(num_compress_steps=1)
    give_birth(model)
    training = Training(0, tf.constant(10_000), tf.range(4), 4)
    with tf.GradientTape() as tape:
        loss = model(features, training=training).losses["latent_nll"].sum
    gradients = tape.gradient(loss, [v.value for v in model.compressor.trainable_variables])
    assert all(gradient is None or not np.any(gradient) for gradient in gradients)


def test_true_tokens_are_revealed_at_first_and_never_in_evaluation(features):
    model = make(reveal=0.99, reveal_steps=100)

    def hidden_gradient(step):
        training = None if step is None else Training(0, tf.constant(step), tf.range(4), 4)
        with tf.GradientTape() as tape:
            loss = model(features, training=training).losses["nll"].sum
        kernel = model.decompressor.double[-1].kernel.value
        gradient = tape.gradient(loss, kernel, unconnected_gradients="zero")
        return float(tf.norm(gradient))

    assert hidden_gradient(100) > 0.0
    assert hidden_gradient(None) > 0.0
    scored = model(features, training=Training(0, tf.constant(50), tf.range(4), 4)).metrics["token_accuracy"]
    assert 2 <= float(scored.weight) <= 18  # about half of the 20 tokens


def test_a_beam_returns_the_outputs_of_the_codes_it_chose(features):
    model = make()
    model.decoding = search.Settings(beam_size=4)
    give_birth(model)
    loose = [{"inputs": tf.TensorSpec([None, None], tf.int32)}]  # as the translator traces it
    infer = tf.function(model.infer, input_signature=loose, autograph=False)
    found = infer({"inputs": features["inputs"]})
    memory, memory_mask = model.encode(features["inputs"], None)
    outputs, _ = model.decode_codes(found["codes"], found["code_mask"], memory, memory_mask)
    np.testing.assert_array_equal(found["outputs"], outputs[:, 0])
    alone = model.infer({"inputs": features["inputs"][1:2]})
    np.testing.assert_array_equal(
        np.trim_zeros(alone["outputs"].numpy()[0]), np.trim_zeros(found["outputs"].numpy()[1])
    )


def test_ctc_sums_the_alignments_of_the_target_to_the_places_of_its_latents(features):
    model = make(ctc_places=2)
    give_birth(model)
    out = model(features)
    assert out.logits.shape == [4, 24, VOCAB]
    for row, (length, latents) in enumerate([(9, 3), (4, 1), (6, 2), (1, 1)]):
        logits = tf.transpose(out.logits[row : row + 1, : latents * 8], [1, 0, 2])
        labels = features["targets"][row : row + 1, :length]
        expected = tf.nn.ctc_loss(labels, logits, [length], [latents * 8], blank_index=0)
        one = model({side: ids[row : row + 1] for side, ids in features.items()}).losses["nll"]
        np.testing.assert_allclose(one.sum, expected[0], rtol=1e-4)
        assert float(one.weight) == length


def test_ctc_outputs_are_the_likeliest_path_without_repeats_and_blanks(features):
    model = make(ctc_places=3)
    give_birth(model)
    paths = np.argmax(model(features).logits, axis=-1)
    outputs = model.reconstruct(features)["outputs"].numpy()
    for path, output, latents in zip(paths, outputs, [3, 1, 2, 1], strict=True):
        labels = [label for label, _ in itertools.groupby(path[: latents * 12]) if label]
        labels = labels[: labels.index(1) + 1] if 1 in labels else labels
        np.testing.assert_array_equal(np.trim_zeros(output), labels)


def test_ctc_places_of_the_source_cannot_express_all_targets(features):
    model = make(**FROM_SOURCE)
    give_birth(model)
    short = tf.constant([[5, 1], [6, 1], [7, 1], [1, 0]])  # 4, 4, 4 and 2 places for 9, 4, 6 and 1 tokens
    out = model(features | {"inputs": short})
    assert out.logits.shape == [4, 4, VOCAB]
    assert float(out.weight) == float(out.losses["nll"].weight) == 4 + 1
    assert float(out.metrics["ctc_too_short"].mean) == 0.5


def test_ctc_places_of_the_source_start_from_it_and_the_latents_spread_over_it():
    model = make(**FROM_SOURCE)
    memory = tf.random.stateless_normal([2, 3, 8], [1, 2])
    hidden, mask = tf.random.stateless_normal([2, 12, 8], [3, 4]), tf.sequence_mask([12, 0], 12)
    model.decompressor = lambda *args, **kwargs: (hidden, mask)
    source_mask = tf.sequence_mask([2, 3], 3)
    start, start_mask = model._start(tf.zeros([2, 3, 8]), mask[:, ::4], memory, source_mask, None)
    np.testing.assert_array_equal(start_mask, tf.sequence_mask([4, 6], 6))
    given = start.numpy() - model.split(memory).numpy().reshape(2, 6, 8)
    np.testing.assert_allclose(given[0, :4], hidden.numpy()[0, [0, 4, 7, 11]], atol=1e-5)
    np.testing.assert_allclose(given[1], 0.0, atol=1e-5)  # no latents


@pytest.mark.parametrize("latents", [0, 3])
def test_a_search_without_latents_still_translates_from_the_source(features, latents):
    model = make(**FROM_SOURCE)
    give_birth(model)
    model.predictor.codes_out.bias.assign(
        tf.one_hot(model.predictor.end_code, 17) * (100.0 if latents == 0 else -100.0)
    )
    found = model.infer({"inputs": features["inputs"]})
    assert np.any(found["code_mask"]) == bool(latents)
    assert found["outputs"].shape == (4, 18)
    memory, memory_mask = model.encode(features["inputs"])
    outputs, _ = model.decode_codes(found["codes"], found["code_mask"], memory, memory_mask)
    np.testing.assert_array_equal(found["outputs"], outputs[:, 0])
    in_graph = tf.function(model.infer, input_signature=[{"inputs": tf.TensorSpec([None, None], tf.int32)}])
    np.testing.assert_array_equal(in_graph({"inputs": features["inputs"]})["outputs"], outputs[:, 0])


def test_the_decoder_reads_guessed_latents_in_training_alone(features):
    plain, guessing = make(), make(guessed=0.99)
    for model in (plain, guessing):
        give_birth(model)
        model.predictor.codes_out.bias.assign(tf.one_hot(7, 17) * 100.0)
    for left, right in zip(plain.variables, guessing.variables, strict=True):
        right.assign(left)
    assert plain(features).losses["nll"].sum == guessing(features).losses["nll"].sum
    training = Training(0, tf.constant(20_000), tf.range(4), 4)
    mask = tf.sequence_mask([3, 1, 2, 1], 3)
    quantized = tf.random.stateless_normal([4, 3, 8], [1, 2])
    logits = tf.broadcast_to(tf.one_hot(7, 17) * 100.0, [4, 4, 17])
    read = guessing._guess(quantized, logits, mask, training).numpy()
    drawn = np.all(read == guessing.bottleneck.codebook.means[7].numpy(), axis=-1)
    assert drawn.sum() >= 5
    np.testing.assert_array_equal(read[~drawn], quantized[~drawn])
    assert not np.any(drawn & ~mask.numpy())
    losses = [float(m(features, training=training).losses["nll"].sum) for m in (plain, guessing)]
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.parametrize("bottleneck", ["hard_em", "soft_em"])
def test_the_e_step_prefers_what_the_predictor_finds(features, bottleneck):
    plain, slightly, strongly = (make(bottleneck=bottleneck, prior_weight=w) for w in (0.0, 1e-6, 50.0))
    for model in (plain, slightly, strongly):
        give_birth(model)
        model.predictor.codes_out.bias.assign(tf.one_hot(7, 17) * 100.0)
    codes, same, preferred = (model.reconstruct(features) for model in (plain, slightly, strongly))
    np.testing.assert_array_equal(same["codes"], codes["codes"])
    mask = preferred["code_mask"].numpy()
    assert np.all(preferred["codes"].numpy()[mask] == 7)
    assert not np.all(codes["codes"].numpy()[mask] == 7)

    training = Training(0, tf.constant(20_000), tf.range(4), 4)
    with tf.GradientTape() as tape:
        out = strongly(features, training=training)
        read = out.losses["nll"].sum + out.losses["commitment_loss"].sum
    counts = out.statistics["latents"]["counts"].numpy()
    np.testing.assert_array_equal(counts, mask.sum() * np.eye(16)[7])
    assert float(out.metrics["latent_accuracy"].sum) == mask.sum()
    predictor = strongly.predictor.trainable_variables
    assert all(g is None or not np.any(g) for g in tape.gradient(read, predictor))


def test_codes_without_a_prior_take_none():
    with pytest.raises(UserError, match=r"prior_weight is 1\.0; it must be 0 with 'fsq'"):
        make(bottleneck="fsq", num_codes=256, prior_weight=1.0)


@pytest.mark.parametrize("settings", [{}, {"beam_size": 3}], ids=["greedy", "beam"])
@pytest.mark.parametrize("ends", [-100.0, 0.0, 1.5, 100.0])
def test_latents_of_several_codes_end_together(features, settings, ends):
    model = make(bottleneck="product")
    model.decoding = search.Settings(**settings)
    model.predictor.codes_out.bias.assign(tf.one_hot(model.predictor.end_code, 17) * ends)
    signature = [tf.TensorSpec([None, None], tf.int32)]
    infer = tf.function(lambda ids: model.infer({"inputs": ids}), input_signature=signature)
    found = infer(features["inputs"])
    batch, latents = found["code_mask"].shape
    assert found["codes"].shape == (batch, latents, 2)
    assert found["outputs"].shape == (batch, 4 * latents)
    lengths = np.count_nonzero(found["code_mask"], axis=1)
    most = np.ceil((2 * np.array([9, 4, 6, 1]) + 10) / 4)
    assert np.all(lengths <= most)
    if ends == -100.0 and not settings:
        np.testing.assert_array_equal(lengths, most)
    if ends == 100.0:
        assert not np.any(lengths)


def test_no_compression_works(features):
    outputs = make(num_compress_steps=0).infer({"inputs": features["inputs"]})
    assert outputs["codes"].shape == (*outputs["outputs"].shape, 1)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("num_compress_steps", -1),
        ("num_compress_steps", 1.5),
        ("num_compress_steps", 40),
        ("compressor_attends", "no"),
        ("bottleneck", 5),
        ("num_codes", 1),
        ("num_codes", "many"),
        ("heads", 3),
        ("dim", 2),
        ("dropout", 1.0),
        ("reveal", 1.0),
        ("decoder_layers", 0),
        ("target_masking", 1.0),
        ("ctc_places", 1),
        ("ctc_places", True),
        ("ctc_from_source", True),
        ("ctc_from_source", 1),
        ("guessed", 1.0),
        ("prior_weight", -1.0),
        ("prior_weight", True),
    ],
)
def test_what_cannot_be_built_is_named(parameter, value):
    with pytest.raises(UserError, match="dim" if parameter == "heads" else parameter):
        make(**{parameter: value})


def test_places_of_the_source_reveal_no_token():
    with pytest.raises(UserError, match="it must be 0 with ctc_from_source"):
        make(**FROM_SOURCE | {"reveal": 0.5})


def test_masked_targets_are_hidden_from_the_compressor_in_training_alone(features):
    plain, masked = make(), make(target_masking=0.9)
    for model in (plain, masked):
        give_birth(model)
    for left, right in zip(plain.variables, masked.variables, strict=True):
        right.assign(left)
    training = {"training": Training(0, tf.constant(20_000), tf.range(4), 4)}
    distances = [float(m(features, **training).losses["commitment_loss"].sum) for m in (plain, masked)]
    assert plain(features).losses["nll"].sum == masked(features).losses["nll"].sum
    assert abs(distances[0] - distances[1]) > 1e-3


@pytest.mark.parametrize("attends", [False, True])
def test_the_codes_depend_on_the_source_only_if_the_compressor_attends(features, attends):
    model = make(compressor_attends=attends)
    give_birth(model)
    other = features | {
        "inputs": tf.where(features["inputs"] > 1, 31 - features["inputs"], features["inputs"])
    }

    def encoded(batch):
        memory, memory_mask = model.encode(batch["inputs"])
        targets = model._pad_to_group(batch["targets"])
        return model._discretise(model.tokens(targets), targets != 0, memory, memory_mask, None)[2]

    assert np.allclose(encoded(features), encoded(other)) != attends


@pytest.mark.parametrize(
    "settings",
    [{}, {"beam_size": 3}, {"num_candidates": 3}, {"temperature": 1.0, "num_candidates": 3}],
    ids=["greedy", "beam", "lengths", "samples"],
)
def test_every_search_returns_its_candidates_the_best_first(features, settings):
    model = make()
    give_birth(model)
    model.decoding = search.Settings(**settings)
    found = model.infer({"inputs": features["inputs"]})
    number = model.decoding.candidates
    assert found["candidates"].shape[:2] == found["scores"].shape == (4, number)
    np.testing.assert_array_equal(found["outputs"], found["candidates"][:, 0])
    lengths = np.maximum(np.count_nonzero(found["candidates"], axis=-1), 1)
    assert np.all(np.diff(found["scores"] / lengths, axis=1) <= 1e-6)
    assert 2 <= int(found["calls"]) <= 1 + (2 * 9 + 10 + 3) // 4


def test_blanks_cost_something_where_there_are_blanks_alone(features):
    model = make(**FROM_SOURCE)
    give_birth(model)
    ahead = tf.one_hot(0, VOCAB) + 0.5 * tf.one_hot(5, VOCAB)  # a blank is, by half a nat
    model._decode = lambda hidden, mask, *rest: tf.broadcast_to(ahead, [*mask.shape, VOCAB])
    for penalty, first in [(0.0, 0), (0.4, 0), (0.6, 5)]:
        model.decoding = search.Settings(blank_penalty=penalty)
        outputs = model.infer({"inputs": features["inputs"]})["outputs"].numpy()
        np.testing.assert_array_equal(outputs[:3, 0], first)
        assert not np.any(outputs[:, 1:])
    model = make()
    model.decoding = search.Settings(blank_penalty=1.0)
    with pytest.raises(UserError, match=r"latent_nat writes no blanks .* must be 0, not 1.0"):
        model.infer({"inputs": features["inputs"]})


@pytest.mark.parametrize("hparams", [{"ctc_places": 2}, FROM_SOURCE], ids=["of the latents", "of the source"])
def test_ctc_candidates_are_ranked_by_all_paths_to_their_tokens(features, hparams):
    model = make(**hparams)
    give_birth(model)
    model.decoding = search.Settings(temperature=1.0, num_candidates=3, blank_penalty=0.1, length_penalty=0.0)
    found = {}
    read, find = model._read, model.predictor.find

    def spied(*given, **how):
        found["frames"], found["logits"] = given[1], model._decode(*given, None)
        found["outputs"], scores = read(*given, **how)
        found["of paths"] = read(*given)[1]
        return found["outputs"], scores

    def searched(*args):
        result = find(*args)
        found["latents"] = result.scores
        return result

    model._read, model.predictor.find = spied, searched
    result = model.infer({"inputs": features["inputs"]})
    expected = []
    for row, output in enumerate(found["outputs"][:, 0].numpy()):
        length, frames = np.count_nonzero(output), np.count_nonzero(found["frames"][row])
        logits = tf.transpose(found["logits"][row : row + 1, :frames], [1, 0, 2])
        expected.append(-tf.nn.ctc_loss(output[None, :length], logits, [length], [frames], blank_index=0)[0])
    assert np.all(np.array(expected) >= found["of paths"][:, 0] - 1e-4)
    assert np.any(np.array(expected) > found["of paths"][:, 0] + 0.1)
    together = np.reshape(expected, [4, 3]) + found["latents"]
    np.testing.assert_allclose(result["scores"], -np.sort(-together, axis=1), rtol=1e-4)


def candidates_apart(model, features):
    """Returns the logits [batch, places, vocab] of each candidate, which places are real, and their scores."""
    memory, memory_mask = model.encode(features["inputs"])
    limits = model.most_tokens(memory_mask, model.group)
    found = model.predictor.find(memory, memory_mask, features["inputs"], model.decoding, *limits)
    said = []
    for i in range(model.decoding.candidates):
        code_mask = tf.sequence_mask(found.lengths[:, i], tf.shape(found.ids)[2])
        codes = tf.where(code_mask, found.ids[:, i], 0)[..., None]
        hidden, places = model._start(model.bottleneck.embed(codes), code_mask, memory, memory_mask, None)
        said.append(model._decode(hidden, places, memory, memory_mask, None))
    return said, places, found.scores.numpy()


def test_pooled_latents_write_one_output_by_the_geometric_mean_of_what_each_says(features):
    model = make(**FROM_SOURCE)
    give_birth(model)
    model.decoding = search.Settings(temperature=1.0, num_candidates=3)
    logits, places, _ = candidates_apart(model, features)
    said = [tf.nn.log_softmax(of_one) for of_one in logits]
    assert np.any(np.abs(said[0] - said[1]) > 1e-3)
    tokens, scores = best_path(tf.add_n(said) / 3, places)

    model.decoding = search.Settings(temperature=1.0, num_candidates=3, pool=True, length_penalty=0.0)
    pooled = model.infer({"inputs": features["inputs"]})
    np.testing.assert_array_equal(pooled["outputs"], tf.where(until_end(tokens), tokens, 0))
    assert pooled["candidates"].shape[1] == 1
    np.testing.assert_allclose(pooled["scores"][:, 0], scores, rtol=1e-4)
    compiled = tf.function(model.infer, jit_compile=True)({"inputs": features["inputs"]})
    np.testing.assert_array_equal(compiled["outputs"], pooled["outputs"])


def test_latents_that_were_not_found_are_not_pooled(features):
    """A source of one token has one latent of two codes or none: a search for ten finds three."""
    model = make(**FROM_SOURCE | {"num_codes": 2, "num_compress_steps": 3})
    give_birth(model)
    model.decoding = search.Settings(beam_size=10, pool=True, length_penalty=0.0)
    logits, places, scores = candidates_apart(model, features)
    there = scores > search.IMPOSSIBLE
    assert np.count_nonzero(there[3]) == 3
    said = [logits[i][3:] for i in np.flatnonzero(there[3])]
    _, score = best_path(tf.add_n(said) / len(said), places[3:])
    pooled = model.infer({"inputs": features["inputs"]})
    np.testing.assert_allclose(pooled["scores"][3], score, rtol=1e-4)


@pytest.mark.parametrize(
    ("hparams", "message"),
    [({}, "decode.pool must be False, not True"), ({"ctc_places": 2}, "here places are those of latents")],
)
def test_latents_without_places_of_the_source_are_not_pooled(features, hparams, message):
    model = make(**hparams)
    give_birth(model)
    model.decoding = search.Settings(beam_size=2, pool=True)
    with pytest.raises(UserError, match=message):
        model.infer({"inputs": features["inputs"]})


@pytest.mark.parametrize("hparams", [{"ctc_places": 2}, FROM_SOURCE], ids=["of the latents", "of the source"])
def test_ngrams_count_in_what_is_written_and_in_its_rank(features, hparams, language_model):
    model = make(**hparams)
    give_birth(model)
    model.language_model = language_model
    plain, model.decoding = model.decoding, search.Settings(lm_weight=2.0, blank_penalty=0.5, ctc_beam_size=3)
    codes = tf.zeros([4, 2, 1], tf.int32)
    given = (codes, tf.ones([4, 2], tf.bool), *model.encode(features["inputs"]))
    tokens, scores = model.decode_codes(*given)
    hidden = model._start(model.bottleneck.embed(codes), *given[1:], None)
    logits = model._decode(*hidden, *given[2:], None)
    how = {"weight": 2.0, "blank_penalty": 0.5, "beam_size": 3}
    labels, found, said = prefix_search(logits, hidden[1], language_model, **how)
    np.testing.assert_array_equal(tokens, labels)
    np.testing.assert_allclose(scores, found, rtol=1e-4)
    of_all_paths = model._read(*hidden, *given[2:], all_paths=True)[1]
    nll, _ = ctc_loss(logits, labels[:, 0], tf.math.count_nonzero(hidden[1], axis=1, dtype=tf.int32))
    np.testing.assert_allclose(of_all_paths, said - nll[:, None], rtol=1e-4)
    model.decoding = plain
    assert np.any(model.decode_codes(*given)[0] != tokens)


@pytest.mark.parametrize("pool", [False, True])
def test_several_outputs_of_each_row_of_places_are_ranked_together(features, pool):
    model = make(**FROM_SOURCE)
    give_birth(model)
    how = {"blank_penalty": 0.5, "beam_size": 3, "candidates": 2}
    model.decoding = search.Settings(temperature=1.0, num_candidates=3)
    logits, places, of_latents = candidates_apart(model, features)
    if pool:
        logits, of_latents = [tf.add_n([tf.nn.log_softmax(x) for x in logits]) / 3], np.zeros([4, 1])
    expected = [[] for _ in range(4)]
    for each, of_each in zip(logits, of_latents.T, strict=True):
        labels, _, _ = prefix_search(each, places, None, weight=0.0, **how)
        for one in tf.unstack(labels, axis=1):
            one = tf.where(until_end(one), one, 0)
            nll, _ = ctc_loss(each, one, tf.math.count_nonzero(places, axis=1, dtype=tf.int32))
            for row in range(4):
                expected[row].append((float(of_each[row] - nll[row]), one[row].numpy().tolist()))
    model.decoding = search.Settings(
        temperature=1.0,
        num_candidates=3,
        pool=pool,
        blank_penalty=0.5,
        ctc_beam_size=3,
        ctc_candidates=2,
        length_penalty=0.0,
    )
    found = model.infer({"inputs": features["inputs"]})
    for row in range(4):
        ranked = sorted(expected[row], reverse=True)
        np.testing.assert_allclose(found["scores"][row], [score for score, _ in ranked], rtol=1e-4)
        assert found["outputs"][row].numpy().tolist() == ranked[0][1]
    assert found["candidates"].shape[1] == (2 if pool else 6)
    if not pool:  # and the codes are those of the best
        of_codes, _ = model.decode_codes(
            found["codes"], found["code_mask"], *model.encode(features["inputs"])
        )
        for row, output in enumerate(found["outputs"].numpy().tolist()):
            assert output in of_codes[row].numpy().tolist()


def test_ngrams_are_refused_without_ctc_and_missed_with_it(features):
    for hparams, message in [({}, "latent_nat writes no blanks"), (FROM_SOURCE, "bin/ngrams")]:
        model = make(**hparams)
        give_birth(model)
        model.decoding = search.Settings(lm_weight=0.3)
        with pytest.raises(UserError, match=message):
            model.infer({"inputs": features["inputs"]})


def test_ctc_candidates_without_a_latent_are_empty(features):
    model = make(ctc_places=2)
    give_birth(model)
    model.predictor.codes_out.bias.assign(1e3 * tf.one_hot(16, 17))  # the end code at once
    model.decoding = search.Settings(temperature=1.0, num_candidates=2)
    signature = [tf.TensorSpec([None, None], tf.int32)]
    found = tf.function(lambda ids: model.infer({"inputs": ids}), input_signature=signature)(
        features["inputs"]
    )
    assert not np.any(found["outputs"])
    np.testing.assert_allclose(found["scores"], 0.0, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "hparams"),
    [
        ({}, SHORT),
        ({"beam_size": 2, "num_candidates": 3}, SHORT),
        ({}, FROM_SOURCE),
        ({"beam_size": 2}, FROM_SOURCE),
        ({"beam_size": 3, "pool": True}, FROM_SOURCE),
        ({"lm_weight": 0.5, "ctc_beam_size": 3, "ctc_candidates": 2}, SHORT | {"ctc_places": 2}),
    ],
    ids=[
        "greedy",
        "beam",
        "ctc from the source",
        "beam, ctc from the source",
        "pooled",
        "n-grams, candidates",
    ],
)
def test_a_compiled_search_of_static_shape_finds_the_same(features, settings, hparams, language_model):
    model = make(**hparams)
    give_birth(model)
    model.language_model = language_model
    model.decoding = search.Settings(**settings)
    signature = [tf.TensorSpec([None, None], tf.int32)]
    plain = tf.function(lambda ids: model.infer({"inputs": ids}), input_signature=signature)(
        features["inputs"]
    )
    compiled = tf.function(lambda ids: model.infer({"inputs": ids}), jit_compile=True)(features["inputs"])
    width = plain["outputs"].shape[1]
    np.testing.assert_array_equal(compiled["outputs"][:, :width], plain["outputs"])
    assert not np.any(compiled["outputs"][:, width:])
    np.testing.assert_allclose(compiled["scores"], plain["scores"], rtol=1e-4)
