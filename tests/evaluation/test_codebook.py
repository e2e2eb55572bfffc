import math

import numpy as np
import pytest

from t2t_vqem.evaluation import codebook


def test_counts_leave_padding_out():
    codes = np.array([[0, 2, 2, 0], [3, 0, 0, 99]])
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool)
    both = np.stack([codes, codes % 2], axis=-1)
    assert codebook.code_counts(both, mask, 5).tolist() == [[1, 0, 2, 1, 0], [3, 1, 0, 0, 0]]


def test_counts_add_over_batches():
    codes, mask = np.arange(12).reshape(3, 4, 1) % 5, np.ones([3, 4], bool)
    whole = codebook.code_counts(codes, mask, 5)
    parts = sum(codebook.code_counts(codes[i : i + 1], mask[i : i + 1], 5) for i in range(3))
    assert whole.tolist() == parts.tolist()


@pytest.mark.parametrize("code", [-1, 5])
def test_a_code_out_of_range(code):
    with pytest.raises(ValueError, match="codebook of 5"):
        codebook.code_counts(np.array([[code]]), np.array([True]), 5)


def test_perplexity():
    assert codebook.perplexity(np.array([7, 7, 7, 0])) == pytest.approx(3.0)
    assert codebook.perplexity(np.array([0, 9])) == pytest.approx(1.0)
    assert codebook.perplexity(np.array([1, 3])) == pytest.approx(4 / 3**0.75)
    assert codebook.perplexity(np.array([0, 0])) == 0.0


def test_usage():
    found = codebook.usage(np.array([[2, 1, 1, 0], [2, 1, 1, 0]]))
    assert found == {
        "codebook_perplexity": pytest.approx(math.exp(1.5 * math.log(2))),
        "perplexity_per_code": pytest.approx(2**1.5 / 4),
        "live_codes": 3.0,
        "latents": 4.0,
    }
