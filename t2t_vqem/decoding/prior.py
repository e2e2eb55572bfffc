"""A prior over codes beside the image model whose codes it learnt."""

from typing import NamedTuple

import tensorflow as tf
from absl import logging

from t2t_vqem import config
from t2t_vqem.errors import UserError
from t2t_vqem.models.model import Features
from t2t_vqem.models.prior import PriorModel
from t2t_vqem.training import runs
from t2t_vqem.training.fingerprint import fingerprint


class Prior(NamedTuple):
    """A trained prior.

    Attributes:
      name: what figures call it: model and step, and whether it learnt drawn codes.
    """

    model: PriorModel
    name: str

    def nats(self, features: Features) -> tf.Tensor:
        """Returns -log P(codes | label) or, of a `code_vqvae`, its upper bound, float32 [batch].

        `features` are {"inputs": labels int32 [batch], "targets": codes int32 [batch, height, width, slots]}.
        """
        return tf.reduce_sum(self.model.code_nll(features), axis=[1, 2, 3]) + self.model.side_nats


def open_prior(
    model_dir: str,
    run: runs.Run,
    metadata: config.RunMetadata,
    *,
    which: str | int = "best",
    dtype: str | None = None,
) -> Prior:
    """Opens the prior in `model_dir`, which must be one of the codes of `run`.

    From then on the prior's configuration is in force.

    Args:
      run: of an image model.
      metadata: of the prior's run, whose configuration was read after `run` was opened.
      which, dtype: the prior's checkpoint, and what it computes in, as `runs.open_run` takes them.

    Raises:
      UserError: no such run, or one of other codes.
    """
    prior = runs.open_run(model_dir, which, metadata, dtype=dtype)
    prior.problem.require_content("codes", "a prior")
    if prior.problem.base_name != run.metadata.problem:
        raise UserError(
            f'the prior in "{model_dir}" is one of {prior.metadata.problem}, and this run is one of '
            f"{run.metadata.problem}; give a prior that was trained on this run's codes"
        )
    model = run.model
    there, here = (
        prior.metadata.dimensions,
        {"code_shape": list(model.code_shape), "num_codes": model.num_codes},
    )
    if any(there[name] != value for name, value in here.items()):
        raise UserError(
            f'the prior in "{model_dir}" is one of {there["num_codes"]} codes in fields of {there["code_shape"]}; this '
            f"run has {model.num_codes} in fields of {list(model.code_shape)}"
        )
    try:
        encoder = prior.problem.manifest(metadata.data_dir)["encoder"]
        known = prior.problem.fingerprint(metadata.data_dir) == metadata.data_fingerprint
    except UserError:  # the data are gone
        known = False
    if not known:
        logging.warning(
            "whether the prior in %s is one of this very checkpoint cannot be told: the codes that it learnt are not "
            "in %s any more", model_dir, metadata.data_dir,
        )  # fmt: skip
    elif encoder["weights"] != fingerprint(model).hex():
        raise UserError(
            f'the prior in "{model_dir}" is one of the codes of other weights (step {encoder["step"]}) than these '
            f"(step {run.step}); give those by --checkpoint, or train a prior on codes of these"
        )
    learnt = " of drawn codes" if known and encoder.get("codes") == "drawn" else ""
    return Prior(prior.model, f"{prior.metadata.model}@{prior.step}{learnt}")
