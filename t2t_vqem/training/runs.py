"""A trained run, opened from its `model_dir` alone: the data it was trained on need not be there any more."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import logging

from t2t_vqem import config, files, ngrams, registry
from t2t_vqem.errors import UserError
from t2t_vqem.models.model import Model
from t2t_vqem.prefix_search import LanguageModel
from t2t_vqem.problems.problem import Problem
from t2t_vqem.problems.vocabulary import Vocabulary
from t2t_vqem.training import checkpoints, strategy
from t2t_vqem.training.train_config import TrainConfig

VOCABULARY_FILE = "vocabulary.model"


class Run(NamedTuple):
    """What a run learnt, ready to be used.

    Attributes:
      vocabulary: of the texts; None where the examples are no texts.
      model: with the weights of `step`.
      train_config: that it was trained with; its `boundaries` are the lengths the model knows.
    """

    problem: Problem
    model: Model
    vocabulary: Vocabulary | None
    metadata: config.RunMetadata
    train_config: TrainConfig
    step: int

    @property
    def ngrams(self) -> str | None:
        """The digest of the n-grams that its search weighs, None for none."""
        language_model = getattr(self.model, "language_model", None)
        return language_model and language_model.digest


def write_run(model_dir: str, metadata: config.RunMetadata, vocabulary: Vocabulary | None) -> None:
    """Writes what `open_run` reads beside the checkpoints; see `config.write_run`, which it calls first."""
    config.write_run(model_dir, metadata)
    if vocabulary is not None:
        files.write_atomic(os.path.join(model_dir, VOCABULARY_FILE), vocabulary.model)


def _known(metadata: config.RunMetadata) -> bool:
    """Returns whether problem and model of a run are registered."""
    try:
        registry.problems.get(metadata.problem)
        registry.models.get(metadata.model)
    except UserError:
        return False
    return True


def open_run(
    model_dir: str,
    checkpoint: str | int = "best",
    metadata: config.RunMetadata | None = None,
    *,
    dtype: str | None = None,
    usr_dir: str | None = None,
    decodes: bool = True,
) -> Run:
    """Returns the run in `model_dir` with the weights of one checkpoint.

    Args:
      checkpoint: "best" (the latest where no best is kept), "latest", or a step.
      metadata: what `cli.flags.configure_run` returned, if that has read the configuration already.
      dtype: to compute in; the run's own `train.dtype` if None.
      usr_dir: where the user's code lies now, if not where the run has it; of no use with `metadata`. What is not in
        it is looked for there.
      decodes: whether it is to write outputs, so that what `decode` binds has to suit it.

    Raises:
      UserError: no run, no such checkpoint, or one of another configuration or vocabulary; decode settings that the
        model cannot honour; no n-grams where they are weighed, or those of another vocabulary.
    """
    path = checkpoints.find(model_dir, checkpoint)
    if metadata is None:
        metadata = config.read_run(model_dir)
        registry.load_usr_dir(usr_dir)
        if usr_dir is None or not _known(metadata):
            registry.load_usr_dir(metadata.usr_dir)
        config.parse_run(model_dir)
    problem = registry.problems.get(metadata.problem)()
    vocabulary, dimensions = None, metadata.dimensions
    if metadata.vocabulary_hash is not None:
        vocabulary_path = os.path.join(model_dir, VOCABULARY_FILE)
        vocabulary = Vocabulary.load(vocabulary_path)
        if vocabulary.hash != metadata.vocabulary_hash:
            raise UserError(f"{vocabulary_path} is not the vocabulary that the run was trained with")
        dimensions = {"vocab_size": vocabulary.size}
    train_config = TrainConfig()
    with strategy.dtype_policy(dtype or train_config.dtype):
        model = registry.models.get(metadata.model)(**dimensions)
        if decodes:
            model.check_decoding()
        model.build_weights()
    if getattr(model, "writes_blanks", False) and model.decoding.lm_weight:
        model.language_model = _language_model(model_dir, vocabulary)
    step = checkpoints.restore_weights(path, model)
    for difference in config.differences(model_dir):
        logging.warning("not as the run was trained: %s", difference)
    return Run(problem, model, vocabulary, metadata, train_config, step)


def _language_model(model_dir: str, vocabulary: Vocabulary) -> LanguageModel:
    """Returns what `bin/ngrams` counted for the run."""
    path = os.path.join(model_dir, ngrams.FILE)
    if not os.path.exists(path):
        raise UserError(
            f"decode.lm_weight weighs n-grams, and the run has none; bin/ngrams --model_dir={model_dir} counts them"
        )
    counted = ngrams.NGrams.load(path)
    if counted.vocabulary_hash != vocabulary.hash:
        raise UserError(
            f"{path} was counted with another vocabulary than the run's; count anew with bin/ngrams"
        )
    return LanguageModel(counted)


def open_unchanged(model_dir: str, checkpoint: str | int, metadata: config.RunMetadata) -> tuple[Run, str]:
    """Opens a run whose outputs are to be kept; returns it and a hash of its checkpoint.

    Raises:
      UserError: as `open_run`; or the checkpoint was replaced meanwhile: its training still goes on.
    """

    before = checkpoint_digest(model_dir, checkpoint)
    run = open_run(model_dir, checkpoint, metadata)
    if checkpoint_digest(model_dir, checkpoint) != before:
        path = checkpoints.find(model_dir, checkpoint)
        raise UserError(f"the checkpoint {path} changed while it was read; wait until its training has ended")
    return run, before


def checkpoint_digest(model_dir: str, checkpoint: str | int) -> str:
    """Returns a hash of the weights that `open_run` would read now."""
    return checkpoints.digest(checkpoints.find(model_dir, checkpoint))


def check_data(run: Run) -> None:
    """Compares the data in the run's `data_dir` with those it was trained on; warns if only the examples differ.

    Raises:
      UserError: they have another vocabulary or shape, so that the run cannot read them.
    """
    problem, metadata = run.problem, run.metadata
    vocabulary = problem.vocabulary(metadata.data_dir)
    if vocabulary is not None and vocabulary.hash != run.vocabulary.hash:
        raise UserError(
            f'the vocabulary of {metadata.problem} in "{metadata.data_dir}" is not the one that the run was trained '
            "with; --data_dir names another folder"
        )
    if vocabulary is None and (dimensions := problem.dimensions(metadata.data_dir)) != metadata.dimensions:
        raise UserError(
            f'the data of {metadata.problem} in "{metadata.data_dir}" are {_words(dimensions)}, and the run was '
            f"trained on {_words(metadata.dimensions)}; --data_dir names another folder"
        )
    if problem.fingerprint(metadata.data_dir) != metadata.data_fingerprint:
        logging.warning("the data in %s are not those that the run began with", metadata.data_dir)


def _words(dimensions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in dimensions.items())
