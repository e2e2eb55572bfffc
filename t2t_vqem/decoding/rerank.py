"""Noisy parallel decoding (Gu et al. 2018, arXiv 1711.02281): many candidates at once, an autoregressive model chooses.

The chooser reads every candidate in one teacher-forced pass, so that this costs one more parallel call.
"""

import os
from collections.abc import Mapping
from typing import Protocol

import tensorflow as tf

from t2t_vqem import search
from t2t_vqem.errors import UserError
from t2t_vqem.training import runs
from t2t_vqem.training.runs import Run


class Candidates(Protocol):
    """A model whose `infer` returns candidates (`models.translation.TranslationModel`)."""

    decoding: search.Settings

    def infer(self, features: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]: ...


class Scorer(Protocol):
    """A model that scores what another wrote (`models.transformer.AutoregressiveTransformer`)."""

    def score(self, inputs: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor: ...


class Reranked:
    """A model whose outputs are those candidates of another that `scorer` finds likeliest a token.

    Attributes:
      scorer_name: what the scorer is called, if anything.
    """

    def __init__(self, model: Candidates, scorer: Scorer, scorer_name: str = ""):
        """Both read the same vocabulary.

        Raises:
          UserError: the scorer cannot score, or there is but one candidate to choose from.
        """
        if not hasattr(scorer, "score"):
            raise UserError("--rerank_model_dir holds a model that cannot score; give a run of transformer")
        if not hasattr(model, "decoding"):
            raise UserError(
                "the model has one output for each line, and none to choose from: it has no decode settings"
            )
        if model.decoding.pool and model.decoding.outputs < 2:
            raise UserError(
                "decode.pool makes one output of all latents; give decode.ctc_candidates, 10 say, too"
            )
        if model.decoding.outputs < 2:
            raise UserError(
                "reranking needs candidates to choose from: give decode.num_candidates or decode.beam_size, "
                "say --gin_param='decode.num_candidates = 4', or where CTC writes decode.ctc_candidates"
            )
        self.scorer_name = scorer_name
        self._model, self._scorer = model, scorer

    @property
    def decoding(self) -> search.Settings:
        """How the candidates are searched for."""
        return self._model.decoding

    def infer(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns "outputs", "candidates", "scores" (the scorer's) and "calls" as the model's own `infer`."""
        found = self._model.infer(features)
        candidates = ended(found["candidates"])
        scores = self._scorer.score(features["inputs"], candidates)
        scores = tf.where(found["scores"] < search.IMPOSSIBLE, found["scores"], scores)
        best = search.best_of(candidates, scores, self._model.decoding)
        return best | {"calls": found["calls"] + 1}


def reranked(run: Run, model_dir: str, usr_dir: str | None = None) -> Reranked:
    """Returns the model of `run` with the run in `model_dir` as its scorer, which computes in the same type.

    `usr_dir` is as `runs.open_run` takes it.

    Raises:
      UserError: no such run, one of another vocabulary, or see `Reranked`.
    """
    scorer = runs.open_run(model_dir, dtype=run.train_config.dtype, usr_dir=usr_dir, decodes=False)
    name = os.path.basename(os.path.abspath(model_dir))
    model = Reranked(run.model, scorer.model, f"{name}, step {scorer.step}")
    if scorer.vocabulary.hash != run.vocabulary.hash:
        raise UserError(
            f'the run in "{model_dir}" has another vocabulary than the one it is to rerank; train both on one problem, '
            "or on NAME and NAME_distill"
        )
    return model


def ended(tokens: tf.Tensor, eos_id: int = 1, pad_id: int = 0) -> tf.Tensor:
    """Returns `tokens` int32 [..., length + 1], with an eos at the end of those that were cut before theirs."""
    lengths = tf.reduce_sum(tf.cast(tokens != pad_id, tf.int32), axis=-1, keepdims=True)
    open_ended = ~tf.reduce_any(tokens == eos_id, axis=-1, keepdims=True)
    padded = tf.concat([tokens, tf.zeros_like(tokens[..., :1])], axis=-1)
    here = tf.range(tf.shape(padded)[-1]) == lengths
    return tf.where(here & open_ended, eos_id, padded)
