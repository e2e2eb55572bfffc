"""A SavedModel with strings in and strings out: TensorFlow and tensorflow-text run it, without this package."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from t2t_vqem.decoding.translator import InferenceModel, rows_by_boundary
from t2t_vqem.errors import UserError
from t2t_vqem.export import fresh_process
from t2t_vqem.export.format import Format, Windows
from t2t_vqem.models.translation import EOS_ID
from t2t_vqem.problems.vocabulary import Vocabulary
from t2t_vqem.training.runs import Run

# What `str.splitlines` ends a line at, and what `str.isspace` says is blank, for RE2.
_BREAK = r"(?:\r\n|[\n-\r\x1c-\x1e\x{85}\x{2028}\x{2029}])"
_BLANK = r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]*"


class SavedModel(Format):
    """The signature "serving_default" maps "text", strings [batch], to "translation" and "score" [batch].

    It computes in the type that the decoder computes in, batches lines as the decoder does, and so gives the
    decoder's text: under bfloat16 another type changes a line in thirteen, another batch one in some hundreds.
    """

    name = "saved_model"

    def write(self, run: Run, model: InferenceModel, folder: str) -> None:
        config = run.train_config
        module = service(
            model, run.vocabulary, boundaries=config.boundaries, batch_tokens=config.batch_tokens
        )
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # what TensorFlow renames and shards is no news
        try:
            tf.saved_model.save(module, folder, signatures={"serving_default": module.translate})
        finally:
            logging.set_verbosity(verbosity)

    def translate(self, run: Run, folder: str, windows: Windows) -> Windows:
        """Loads the export in a new process that cannot import this package."""
        command = [sys.executable, "-P", fresh_process.__file__, folder]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2"} | os.environ
        done = subprocess.run(
            command, input=json.dumps(windows), capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode:
            said = (done.stderr.strip() or "nothing").splitlines()[-1]
            raise UserError(
                f"the export cannot be used without this package; a process that tried said: {said}"
            )
        return json.loads(done.stdout.splitlines()[-1])

    def details(self, run: Run) -> dict[str, Any]:
        return {"signature": {"inputs": ["text"], "outputs": ["translation", "score"]}}


def service(
    model: InferenceModel, vocabulary: Vocabulary, *, boundaries: Sequence[int], batch_tokens: int
) -> tf.Module:
    """Returns a module whose `translate` does in a graph what `decoding.translator.Translator` does.

    `translate` maps strings [batch] to {"translation": strings [batch], "score": float32 [batch]}, the score
    being the first of what the model's `infer` returns. A blank line gives an empty one, with score 0.
    """
    boundaries = sorted(set(boundaries))
    longest = boundaries[-1]
    rows = list(rows_by_boundary(model, boundaries, batch_tokens).values())

    def translate(text: tf.Tensor) -> dict[str, tf.Tensor]:
        lines = one_line(text)
        tokens = vocabulary.tf_tokenize(lines)
        lengths = tf.cast(tf.minimum(tokens.row_lengths(), longest), tf.int32)
        blank = tf.strings.regex_full_match(lines, _BLANK) | (lengths < 2)
        ids = tokens.to_tensor(shape=[None, longest])
        ids = tf.where(tf.range(longest) == lengths[:, None] - 1, EOS_ID, ids)  # of those that were cut
        buckets = tf.searchsorted(tf.constant(boundaries), lengths)

        def unfinished(pending, *_):
            return tf.reduce_any(pending)

        def one_batch(pending, translation, score):
            bucket = tf.reduce_min(tf.where(pending, buckets, len(boundaries)))
            here = tf.where(pending & (buckets == bucket))[: tf.gather(rows, bucket)]
            inputs = tf.gather_nd(ids, here)[:, : tf.gather(boundaries, bucket)]
            found = model.infer({"inputs": inputs})
            outputs = one_line(vocabulary.tf_detokenize(found["outputs"]))
            return (
                tf.tensor_scatter_nd_update(pending, here, tf.zeros(tf.shape(here)[:1], tf.bool)),
                tf.tensor_scatter_nd_update(translation, here, outputs),
                tf.tensor_scatter_nd_update(score, here, found["scores"][:, 0]),
            )

        empty = (~blank, tf.fill(tf.shape(lines), ""), tf.zeros(tf.shape(lines)))
        # One batch at a time, or memory would grow with the number of lines.
        _, translation, score = tf.while_loop(unfinished, one_batch, empty, parallel_iterations=1)
        return {"translation": translation, "score": score}

    module = tf.Module()
    module.translate = tf.function(
        translate, input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False
    )
    # Only what inference reads is saved; the graph cannot be without it.
    module.weights = list(module.translate.get_concrete_function().graph.variables)
    module.tokenizer = vocabulary.tokenizer
    return module


def one_line(text: tf.Tensor) -> tf.Tensor:
    """Does in a graph what `decoding.translator.one_line` does, for strings of any shape."""
    return tf.strings.regex_replace(tf.strings.regex_replace(text, _BREAK + r"\z", ""), _BREAK, " ")
