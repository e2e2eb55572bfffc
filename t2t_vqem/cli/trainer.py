"""Trains a model on a problem; where --model_dir holds a run already, goes on with it.

    bin/trainer --problem=toy_ende --model=latent_nat --gin_file=soft_em.gin --data_dir=data --model_dir=run
    bin/trainer --model_dir=run --train_steps=20000     # the same run, longer

The data is generated if it is missing. The last line of stdout is a JSON object.
"""

import contextlib
import json
import os
from typing import Any

from absl import flags as absl_flags
from absl import logging

from t2t_vqem import config, registry
from t2t_vqem.cli import flags
from t2t_vqem.cli import main as cli_main
from t2t_vqem.errors import UserError

flags.define("problem", "model", "gin_file", "gin_param", "usr_dir", "data_dir", "source_dir", "model_dir")
flags.define("strategy", "train_steps", "seed")
absl_flags.DEFINE_boolean("show_config", False, "print the configuration in full and exit")
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Flags to library calls."""
    del argv
    setup = _configure()

    from t2t_vqem.evaluation import evaluators
    from t2t_vqem.training import runs
    from t2t_vqem.training import strategy as strategies
    from t2t_vqem.training.train_config import TrainConfig
    from t2t_vqem.training.trainer import Trainer

    train_config = TrainConfig()
    build = registry.models.get(setup["model"])
    problem = registry.problems.get(setup["problem"])()
    problem.require_content(getattr(build, "content", "text"), f"the model {setup['model']}")
    data_dir, model_dir = setup["data_dir"], FLAGS.model_dir
    dimensions = _dimensions(problem, data_dir)
    if FLAGS.show_config:
        if dimensions is None:
            logging.warning(
                "what %s takes shows when there are data: give --data_dir, which has them", setup["model"]
            )
        else:
            build(**dimensions)
        print(config.operative())
        return

    strategy = strategies.make(FLAGS.strategy)  # before anything makes a variable
    chief = strategies.pipeline(strategy)[0] == 0
    if dimensions is not None:
        _check_model(build(**dimensions))  # what cannot be built is better known before the data are made
    if chief:
        problem.generate(data_dir, FLAGS.source_dir)
        problem.check(data_dir)
    strategies.any_worker(strategy, False)  # the other workers wait for the data
    dimensions = problem.dimensions(data_dir)
    evaluator = evaluators.make(
        problem, data_dir, problem.dev_split, train_config, max_examples=train_config.eval_examples or None
    )
    trainer = Trainer(
        problem,
        lambda: build(**dimensions),
        train_config,
        data_dir=data_dir,
        model_dir=model_dir,
        strategy=strategy,
        seed=setup["seed"],
        evaluators={problem.dev_split: evaluator},
    )
    for binding in config.unused():
        logging.warning("nothing uses the binding %s", binding)
    if chief:
        vocabulary = problem.vocabulary(data_dir)
        metadata = config.RunMetadata(
            **setup,
            usr_dir=FLAGS.usr_dir,
            vocabulary_hash=vocabulary and vocabulary.hash,
            data_fingerprint=problem.fingerprint(data_dir),
            dimensions=None if vocabulary else dimensions,
        )
        runs.write_run(model_dir, metadata, vocabulary)
    entry = trainer.train_and_evaluate()
    if chief:
        told = ("steps", "seconds", "evaluation_seconds", "tokens_per_second", "best", "final")
        names = {"problem": setup["problem"], "model": setup["model"], "model_dir": model_dir}
        print(json.dumps(names | {key: entry[key] for key in told if key in entry}, ensure_ascii=False))


def _check_model(model: Any) -> None:
    """Raises UserError if the model cannot decode as is bound: with n-grams, say, which a run that is made has not."""
    model.check_decoding()
    if hasattr(model, "decoding") and model.decoding.lm_weight:
        raise UserError(
            "decode.lm_weight weighs n-grams, which are counted once a run is there; leave it out here and give it to "
            "bin/decoder or bin/evaluator"
        )


def _dimensions(problem: Any, data_dir: str | None) -> dict[str, Any] | None:
    """Returns what the model is to be told of the data, as far as it is known before they are made."""
    dimensions = problem.dimensions(None)
    if dimensions is None and data_dir:
        with contextlib.suppress(UserError):  # there are none yet
            return problem.dimensions(data_dir)
    return dimensions


def _configure() -> dict:
    """Reads code and configuration, of the run in --model_dir where no --problem is given.

    Returns problem, model, data_dir and seed. Unknown names are refused before TensorFlow is needed.
    """
    if FLAGS.train_steps is not None:
        FLAGS.gin_param = [*FLAGS.gin_param, f"train.train_steps = {FLAGS.train_steps}"]
    there = FLAGS.model_dir and os.path.exists(os.path.join(FLAGS.model_dir, config.RUN_FILE))
    run = config.read_run(FLAGS.model_dir) if there else None
    if run is not None and run.averaged:
        raise UserError(
            f'model_dir "{FLAGS.model_dir}" holds averaged weights, which no optimizer state goes with; '
            "go on with the run they are of, or choose another --model_dir"
        )
    if run is not None:
        FLAGS.seed = FLAGS.seed if FLAGS["seed"].present else run.seed
        asked = {name: FLAGS[name].value for name in ("problem", "model", "seed")}
        config.require_same(FLAGS.model_dir, run, **asked)
    if run is not None and not FLAGS.problem:
        flags.configure_run()
        FLAGS.usr_dir = run.usr_dir
        return {"problem": run.problem, "model": run.model, "data_dir": run.data_dir, "seed": run.seed}
    flags.require("problem", "model")
    if not FLAGS.show_config:
        flags.require("data_dir", "model_dir")
    registry.load_usr_dir(FLAGS.usr_dir)
    for known, name in ((registry.problems, FLAGS.problem), (registry.models, FLAGS.model)):
        if name not in known.names():
            known.get(name)  # raises, naming the nearest
    flags.configure()
    return {name: FLAGS[name].value for name in ("problem", "model", "data_dir", "seed")}


if __name__ == "__main__":
    cli_main.run(main)
