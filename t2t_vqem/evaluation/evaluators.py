"""Which evaluator judges the models of which problems."""

from t2t_vqem.evaluation.codes import CodesEvaluator
from t2t_vqem.evaluation.image import ImageEvaluator
from t2t_vqem.evaluation.translation import TranslationEvaluator
from t2t_vqem.problems.problem import Problem
from t2t_vqem.training.train_config import TrainConfig
from t2t_vqem.training.trainer import Evaluator


def make(
    problem: Problem, data_dir: str, split: str, config: TrainConfig, max_examples: int | None = None
) -> Evaluator:
    """Returns the evaluator of one split, in the batches of `config`.

    Args:
      max_examples: takes this many examples, evenly spaced over the split; None takes all.

    Raises:
      UserError: the problem has no such split, or its data are missing.
    """
    sizes = {"batch_tokens": config.batch_tokens, "max_examples": max_examples}
    if problem.content == "images":
        return ImageEvaluator(problem, data_dir, split, **sizes)
    if problem.content == "codes":
        return CodesEvaluator(problem, data_dir, split, **sizes)
    return TranslationEvaluator(problem, data_dir, split, boundaries=config.boundaries, **sizes)
