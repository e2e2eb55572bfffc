"""How well a model translates a split: text metrics, teacher-forced means, codebook usage, samples.

Quality splits into separate questions, and each has its own figure: `bleu` is of the translations the model
makes alone; `reconstruction_bleu` of decoding from the true latents, the ceiling that the latent predictor
works under; `latent_nll` and `latent_accuracy` of that predictor; `length_ratio` of the outputs' length;
`live_codes` and `codebook_perplexity` of collapse.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from t2t_vqem.context import LossTerm
from t2t_vqem.decoding.translator import InferenceModel, Translator, one_line
from t2t_vqem.evaluation import codebook
from t2t_vqem.evaluation.evenly import evenly
from t2t_vqem.models.model import Model
from t2t_vqem.problems.batches import Batching
from t2t_vqem.problems.problem import Problem

Value = float | str | np.ndarray
_SAMPLES = 8


class Evaluation(NamedTuple):
    """The figures of one evaluation by name, and the translations they are of, in the split's order."""

    values: Mapping[str, Value]
    hypotheses: list[str]


class TranslationEvaluator:
    """Evaluates translation models on one split of a problem.

    The split is read once, and a model is traced once: both are kept from call to call.

    Attributes:
      sources, references: the raw texts that are evaluated.
      main_metric: the problem's.
    """

    def __init__(
        self,
        problem: Problem,
        data_dir: str,
        split: str,
        *,
        boundaries: Sequence[int],
        batch_tokens: int,
        max_examples: int | None = None,
    ):
        """Reads the split.

        Args:
          problem: a translation problem: it has `vocabulary(data_dir)` and `texts(split, data_dir)`.
          boundaries: lengths of the buckets in tokens, eos included.
          batch_tokens: padded tokens of one side of a batch.
          max_examples: takes this many examples, evenly spaced over the split; None or 0 takes all.

        Raises UserError if the problem has no such split or its data is missing.
        """
        self._problem = problem
        self.main_metric = problem.main_metric
        self._vocabulary = problem.vocabulary(data_dir)
        self._boundaries, self._batch_tokens = boundaries, batch_tokens
        sources, references = problem.texts(split, data_dir)
        chosen = evenly(len(sources), max_examples)
        self.sources = [sources[i] for i in chosen]
        self.references = [references[i] for i in chosen]
        batching = Batching(batch_tokens=batch_tokens, boundaries=tuple(boundaries))
        batches = problem.dataset(split, data_dir, batching, training=False).as_numpy_iterator()
        self._batches = _select(batches, {index: place for place, index in enumerate(chosen)})
        self._models: tuple | None = None  # what is traced: the model, and what translates

    def evaluate(self, model: Model, step: int) -> Mapping[str, Value]:
        """Returns the figures of `model` by name; see `evaluate_with_hypotheses`."""
        del step  # the caller's, to file the values under
        return self.evaluate_with_hypotheses(model).values

    def evaluate_with_hypotheses(self, model: Model, translating: InferenceModel | None = None) -> Evaluation:
        """Translates the split and returns the figures with the translations.

        Args:
          translating: what translates in the place of `model`: one around it, say.

        Floats: what the problem's `score` gives (`bleu`, `chrf`, ...); for a model with `reconstruct` the main one of
        them as `reconstruction_bleu`, say; `length_ratio`, pieces of the outputs per piece of the references; every
        loss and metric of the teacher-forced forward pass, as a mean over the whole split; `codebook.usage`. Text: the
        metrics' signatures and `samples`, a Markdown table. Array: `code_histogram`, int64 [slots, num_codes].
        """
        if self._models != (model, translating or model):
            self._models = (model, translating or model)
            self._translator = Translator(
                translating or model,
                self._vocabulary,
                boundaries=self._boundaries,
                batch_tokens=self._batch_tokens,
            )
            ids = tf.TensorSpec([None, None], tf.int32)  # one graph for every batch shape, as in Translator
            self._forward = tf.function(
                lambda batch: forward(model, batch),
                input_signature=[{"inputs": ids, "targets": ids}],
                autograph=False,
            )
        hypotheses = list(self._translator.translate(self.sources))
        values = dict(self._problem.score(hypotheses, self.references))
        values["length_ratio"] = self._pieces(hypotheses) / max(1, self._pieces(self.references))
        forced, reconstructions = self._teacher_forced(model)
        values.update(forced)
        columns = {"source": self.sources, "reference": self.references, "translation": hypotheses}
        if reconstructions is not None:
            score = self._problem.score(reconstructions, self.references)
            if self.main_metric in score:  # else the trainer says, of all figures, that there is none
                values[f"reconstruction_{self.main_metric}"] = score[self.main_metric]
            columns["reconstruction from true latents"] = reconstructions
        values["samples"] = markdown_table(columns, evenly(len(self.sources), _SAMPLES))
        return Evaluation(values, hypotheses)

    def _teacher_forced(self, model: Model) -> tuple[dict[str, Value], list[str] | None]:
        """Returns the means over the split and, for a model with latents, what it makes of the true ones."""
        sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
        counts = 0
        reconstructions = [""] * len(self.sources)
        for batch, places in self._batches:
            terms, rebuilt = self._forward({name: tf.constant(array) for name, array in batch.items()})
            for name, (total, weight) in terms.items():
                sums[name] += [float(total), float(weight)]
            if rebuilt is None:
                continue
            texts = self._vocabulary.decode(rebuilt["outputs"].numpy().tolist())
            for place, text in zip(places, texts, strict=True):
                reconstructions[place] = one_line(text)
            (bottleneck,) = model.bottlenecks.values()
            codes, mask = rebuilt["codes"].numpy(), rebuilt["code_mask"].numpy()
            counts += codebook.code_counts(codes, mask, bottleneck.num_codes)
        values: dict[str, Value] = {
            name: total / weight for name, (total, weight) in sums.items() if weight > 0
        }
        if not isinstance(counts, np.ndarray):
            return values, None
        return {**values, **codebook.usage(counts), "code_histogram": counts}, reconstructions

    def _pieces(self, texts: list[str]) -> int:
        return sum(len(ids) - 1 for ids in self._vocabulary.encode(texts))


def forward(
    model: Model, batch: dict[str, tf.Tensor]
) -> tuple[dict[str, LossTerm], dict[str, tf.Tensor] | None]:
    """Returns the loss and metric terms of a batch, and what the model makes of its true latents, if it has any."""
    output = model(batch, training=None)
    rebuilt = model.reconstruct(batch) if hasattr(model, "reconstruct") else None
    return {**output.losses, **output.metrics}, rebuilt


def _select(batches, places: Mapping[int, int]) -> list[tuple[dict[str, np.ndarray], list[int]]]:
    """Packs the examples whose index is in `places` into batches of no more rows, each with its places."""
    buckets, rows = defaultdict(list), {}
    for batch in batches:
        shape = batch["inputs"].shape[1]
        rows[shape] = batch["inputs"].shape[0]
        for row, index in enumerate(batch["index"]):
            if index in places:  # rows of padding have index -1
                buckets[shape].append((places[index], batch["inputs"][row], batch["targets"][row]))
    packed = []
    for length, examples in buckets.items():
        for start in range(0, len(examples), rows[length]):
            part = examples[start : start + rows[length]]
            numbers, inputs, targets = zip(*part, strict=True)
            packed.append(({"inputs": np.stack(inputs), "targets": np.stack(targets)}, list(numbers)))
    return packed


def markdown_table(columns: Mapping[str, Sequence[str]], rows: Sequence[int]) -> str:
    """Returns the given rows of named columns of text as a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in cells) + " |"

    head = [line(list(columns)), "|" + "---|" * len(columns)]
    return "\n".join(head + [line([column[row] for column in columns.values()]) for row in rows])
