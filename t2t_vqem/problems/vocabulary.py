"""A SentencePiece vocabulary: the same ids from Python (datagen) and from the graph (models, SavedModels).

Text is not normalised: what goes in cased and accented comes out so. Only runs of spaces become one space.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import sentencepiece

from t2t_vqem.errors import UserError
from t2t_vqem.problems import shards

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_text

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2


class Vocabulary:
    """Pieces of text and their ids; every sequence of ids ends with `EOS_ID`.

    Args:
      model: a serialised SentencePiece model whose pad, eos and unk have the ids above.
    """

    def __init__(self, model: bytes):
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    @classmethod
    def load(cls, path: str) -> Vocabulary:
        """Raises a UserError where the file is missing or is no SentencePiece model."""
        try:
            with open(path, "rb") as file:
                return cls(file.read())
        except FileNotFoundError:
            raise UserError(f"there is no vocabulary {path}; it comes with the data of bin/datagen") from None
        except OSError as error:
            raise shards.os_error(path, error) from error
        except RuntimeError as error:
            raise UserError(f"{path} is not a SentencePiece model") from error

    @property
    def size(self) -> int:
        return self._processor.vocab_size()

    @functools.cached_property
    def hash(self) -> str:
        return hashlib.sha256(self.model).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self._processor.encode(list(texts), out_type=int, add_eos=True, num_threads=1)

    def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
        """Cuts each sequence at its first eos and drops pads."""
        return self._processor.decode([_until_eos(sequence) for sequence in ids])

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self._processor.id_to_piece(int(i)) for i in ids]

    def decode_pieces(self, pieces: Sequence[str]) -> str:
        return self._processor.decode_pieces(list(pieces))

    @functools.cached_property
    def tokenizer(self) -> tensorflow_text.SentencepieceTokenizer:
        """The tokenizer in the graph; a module that is exported must hold it as an attribute."""
        import tensorflow as tf
        import tensorflow_text

        with tf.init_scope():  # its resource outlives the function that happens to ask first
            return tensorflow_text.SentencepieceTokenizer(model=self.model, add_eos=True)

    def tf_tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Returns int32 [batch, (length)] for strings [batch]; equal to `encode`."""
        return self.tokenizer.tokenize(texts)

    def tf_detokenize(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
        """Returns strings [batch] for int32 [batch, length]; equal to `decode`."""
        import tensorflow as tf

        if isinstance(ids, tf.RaggedTensor):
            ids = ids.to_tensor(default_value=PAD_ID)
        ended = tf.cumsum(tf.cast(ids == EOS_ID, tf.int32), axis=1) > 0
        return self.tokenizer.detokenize(tf.ragged.boolean_mask(ids, ~ended & (ids != PAD_ID)))


def train(
    lines: Iterable[str], vocab_size: int, model_type: str = "unigram", character_coverage: float = 1.0
) -> bytes:
    """Trains a SentencePiece model (Kudo and Richardson 2018, arXiv:1808.06226) and returns it serialised.

    Args:
      lines: text of both languages; its order matters to the last bit of the result.
      vocab_size: the most pieces, special ones included; a small corpus may give fewer.
      model_type: "unigram" (Kudo 2018, arXiv:1804.10959) or "bpe" (Sennrich et al. 2016, arXiv:1508.07909).
      character_coverage: the share of characters in `lines` that get a piece; the rest is unknown.

    Raises:
      UserError: no text, or a `vocab_size` that cannot even hold the characters.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=character_coverage,
            normalization_rule_name="identity",
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            num_threads=16,  # fixed: the result depends on it, and must not depend on the machine
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"no vocabulary with vocab_size={vocab_size} comes of this text: {reason}") from error
    return model.getvalue()


def _until_eos(ids: Sequence[int]) -> list[int]:
    ids = [int(i) for i in ids]
    end = ids.index(EOS_ID) if EOS_ID in ids else len(ids)
    return [i for i in ids[:end] if i != PAD_ID]
