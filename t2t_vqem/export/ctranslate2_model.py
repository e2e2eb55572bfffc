"""The model `transformer` in the format of CTranslate2 (github.com/OpenNMT/CTranslate2), an optional package.

CTranslate2 knows pieces, not text: SentencePiece, with the `vocabulary.model` that lies beside the model, stands
before and after it. CTranslate2 adds the eos.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from t2t_vqem import files, search
from t2t_vqem.decoding.translator import InferenceModel, one_line
from t2t_vqem.errors import UserError
from t2t_vqem.export.format import Format, Windows
from t2t_vqem.layers.attention import positions
from t2t_vqem.layers.transformer import Transformer
from t2t_vqem.models.transformer import AutoregressiveTransformer
from t2t_vqem.models.translation import EOS_ID, PAD_ID
from t2t_vqem.problems.vocabulary import UNK_ID
from t2t_vqem.training.runs import VOCABULARY_FILE, Run

try:
    import ctranslate2
except ImportError:
    ctranslate2 = None

_NEVER = -1e9
_LEAST_POSITIONS = 1024  # CTranslate2 reads so many source tokens unless it is told otherwise


class CTranslate2(Format):
    """Weights in float32, compared with greedy search in float32; the reader may quantise as it loads.

    CTranslate2 searches by settings of its own, given at each call, so those of the run are not part of it.
    """

    name = "ctranslate2"
    dtype = "float32"
    chooses = False

    def __init__(self):
        if ctranslate2 is None:
            raise UserError(
                "--format=ctranslate2 needs the package ctranslate2; pip install 't2t-vqem[ctranslate2]', or "
                "pip install ctranslate2 where this package is a checkout"
            )

    def write(self, run: Run, model: InferenceModel, folder: str) -> None:
        if type(run.model) is not AutoregressiveTransformer:
            raise UserError(
                f"CTranslate2 has no model like {run.metadata.model}; only transformer can be exported to it"
            )
        if searched := str(run.model.decoding):
            logging.warning(
                "CTranslate2 is told how to search at each call; %s is not part of the export", searched
            )
        run.model.decoding = search.Settings.greedy()
        pieces = run.vocabulary.pieces(range(run.vocabulary.size))
        save(run.model, pieces, folder, run.train_config.boundaries[-1])
        files.write_atomic(os.path.join(folder, VOCABULARY_FILE), run.vocabulary.model)

    def translate(self, run: Run, folder: str, windows: Windows) -> Windows:
        """Runs CTranslate2 on a CPU, in float32, greedily, with the decoder's limits on lengths."""
        translator = ctranslate2.Translator(folder, device="cpu", compute_type="float32", intra_threads=1)
        return [[self._line(translator, run, line) for line in window] for window in windows]

    def _line(self, translator: Any, run: Run, line: str) -> str:
        (ids,) = run.vocabulary.encode([one_line(line)])
        if not line.strip() or len(ids) < 2:
            return ""
        longest = run.train_config.boundaries[-1]
        (result,) = translator.translate_batch(
            [run.vocabulary.pieces(ids[:-1])],
            beam_size=1,
            max_input_length=longest,
            max_decoding_length=_most_tokens(run.model, min(len(ids), longest)),
        )
        return one_line(run.vocabulary.decode_pieces(result.hypotheses[0]))

    def details(self, run: Run) -> dict[str, Any]:
        return {
            "vocabulary": VOCABULARY_FILE,
            "most_target_tokens": _most_tokens(run.model, run.train_config.boundaries[-1]),
            "ctranslate2": ctranslate2.__version__,
        }


def _most_tokens(model: AutoregressiveTransformer, source_tokens: int) -> int:
    return model.most_tokens(np.ones([1, source_tokens], bool))[1]


def save(model: AutoregressiveTransformer, pieces: Sequence[str], folder: str, longest: int) -> None:
    """Writes a model with the vocabulary `pieces`, for sources of up to `longest` tokens, into `folder`."""
    spec = _spec(model, longest)
    spec.register_source_vocabulary(list(pieces))
    spec.register_target_vocabulary(list(pieces))
    spec.config.unk_token, spec.config.eos_token = pieces[UNK_ID], pieces[EOS_ID]
    spec.config.decoder_start_token = pieces[EOS_ID]  # in name only: the decoder starts from zeros
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = model.encoder.norm.epsilon
    spec.validate()
    spec.optimize()
    spec.save(folder)


def _spec(model: AutoregressiveTransformer, longest: int) -> Any:
    """Returns a TransformerSpec with the weights of `model`, which reads sources of up to `longest` tokens."""
    spec = ctranslate2.specs.TransformerSpec.from_config(
        (len(model.encoder.blocks), len(model.decoder.blocks)), model.encoder.heads
    )
    places = max(_LEAST_POSITIONS, _most_tokens(model, longest) + 1)
    encodings = positions(places, model.dim, np.float32).numpy()
    for part in (spec.encoder, spec.decoder):
        part.scale_embeddings = True
        part.position_encodings.encodings = encodings
    spec.decoder.start_from_zero_embedding = True
    table = _array(model.tokens.table)
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = table
    spec.decoder.projection.weight = table
    spec.decoder.projection.bias = np.zeros([len(table)], np.float32)
    spec.decoder.projection.bias[PAD_ID] = _NEVER  # padding is no token
    _set_stack(spec.encoder, model.encoder)
    _set_stack(spec.decoder, model.decoder)
    return spec


def _set_stack(spec: Any, stack: Transformer) -> None:
    _set_norm(spec.layer_norm, stack.norm)
    for to, layer in zip(spec.layer, stack.blocks, strict=True):
        _set_norm(to.self_attention.layer_norm, layer.self_norm)
        own = layer.self_attention
        for linear, part in zip(to.self_attention.linear, (own.project, own.combine), strict=True):
            linear.weight = _kernel(part)
        if layer.cross_attention is not None:
            _set_norm(to.attention.layer_norm, layer.cross_norm)
            other = layer.cross_attention
            parts = (other.query, other.key_value, other.combine)
            for linear, part in zip(to.attention.linear, parts, strict=True):
                linear.weight = _kernel(part)
        _set_norm(to.ffn.layer_norm, layer.feed_norm)
        dense = layer.feed_forward
        for linear, part in ((to.ffn.linear_0, dense.expand), (to.ffn.linear_1, dense.contract)):
            linear.weight, linear.bias = _kernel(part), _array(part.bias)


def _kernel(dense: Any) -> np.ndarray:
    """Returns the weights of a dense layer as [outputs, inputs]."""
    return _array(dense.kernel).T


def _set_norm(spec: Any, norm: Any) -> None:
    spec.gamma, spec.beta = _array(norm.gamma), _array(norm.beta)


def _array(variable: Any) -> np.ndarray:
    return variable.numpy().astype(np.float32)
