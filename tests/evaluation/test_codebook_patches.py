"""What bin/codebook says of codes of pictures, by hand."""

import base64
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2t_vqem.evaluation import codebook_page, codebook_picture_swaps, codebook_projector
from t2t_vqem.evaluation.codebook_patches import CodePatches
from t2t_vqem.evaluation.codebook_reading import Reading
from t2t_vqem.evaluation.codebook_swaps import Swap

FIELD, PATCH, CODES = (2, 3, 2), (2, 2), 5
LEVELS = np.arange(5) * 40  # of each code: neighbours are alike


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def reading(codes):
    """Pictures whose patches have the level of the code of the first slot; `codes` is [pictures, 6, 2]."""
    codes = np.asarray(codes, np.int32)
    count = len(codes)
    levels = LEVELS[codes[:, :, 0]].reshape(count, 2, 3).repeat(2, axis=1).repeat(2, axis=2)
    pictures = np.repeat(levels[..., None], 3, axis=-1).astype(np.uint8)
    return Reading(
        codes=codes.reshape(-1, 2),
        examples=np.repeat(np.arange(count), 6),
        positions=np.tile(np.arange(6), count),
        features=[{"inputs": np.int32(n), "targets": picture} for n, picture in enumerate(pictures)],
        metrics={},
    )


def drawn(count, seed=0):
    return np.random.default_rng(seed).integers(0, CODES, [count, 6, 2])


def test_patches_and_their_mean_are_those_of_the_code():
    codes = drawn(6)
    told = CodePatches(reading(codes), FIELD, PATCH, CODES).of_slot(0)
    assert sorted(told) == np.unique(codes[..., 0]).tolist()
    for code, found in told.items():
        assert pixels(found["mean"]).shape == (2, 2, 3)
        assert np.unique(pixels(found["mean"])).tolist() == [LEVELS[code]]
        shown = min(8, np.count_nonzero(codes[..., 0] == code))
        assert pixels(found["patches"]).shape == (2, 3 * shown - 1, 3)


def test_likeness_is_one_where_halves_agree_and_nothing_where_they_cannot_be_compared():
    meaning = CodePatches(reading(drawn(60)), FIELD, PATCH, CODES)
    second = np.arange(60) % 2 == 0
    own, by_chance = meaning.likeness(0, second)
    assert sorted(own) == list(range(CODES))
    assert min(value for code, value in own.items() if code != 2) > 0.9  # 2 is the mean patch itself
    assert by_chance < 0.7
    apart, _ = meaning.likeness(1, second)  # says nothing of the patch
    assert np.mean(list(apart.values())) < 0.9
    assert meaning.likeness(0, np.ones(60, bool)) == ({}, None)
    rare = CodePatches(reading(drawn(1)), FIELD, PATCH, CODES)
    assert rare.likeness(0, np.array([True])) == ({}, None)
    few = CodePatches(reading(drawn(2)), FIELD, PATCH, CODES)
    assert few.likeness(0, np.array([True, False])) == ({}, None), (
        "no code is there five times in both halves"
    )


class Painter:
    """Decodes a position into its patch, and half the code of the position before it on top."""

    code_shape = FIELD

    def decode(self, codes, labels):
        first = codes[..., 0] * 40
        levels = first + tf.roll(first, 1, axis=2) // 2 + labels[:, None, None]
        levels = tf.repeat(tf.repeat(levels, 2, axis=1), 2, axis=2)
        return tf.cast(tf.repeat(levels[..., None], 3, axis=-1), tf.uint8)


def test_what_a_swap_changes_in_its_patch_and_elsewhere():
    codes = np.zeros([2, 6, 2], int)
    codes[:, :, 0] = 1
    # The second is of the slot that decides nothing.
    chosen = [Swap(0, 4, 0, 1, 3), Swap(1, 2, 1, 0, 1)]
    found = codebook_picture_swaps.study(Painter(), reading(codes), chosen, (2, 2))
    assert found["pictures"] == 2
    assert found["levels_inside"] == pytest.approx(80 / 2)  # of two patches
    assert found["levels_outside"] == pytest.approx(40 / 10)  # one of ten
    first, second = found["shown"]
    before, after = pixels(first["before"]).astype(int), pixels(first["after"]).astype(int)
    assert np.unique(after[2:, 2:4] - before[2:, 2:4]).tolist() == [80]
    assert np.unique(after[2:, 4:] - before[2:, 4:]).tolist() == [40]
    assert second["before"] == second["after"] != second["source"], "the class is told: one level more"


def test_the_page_and_the_projector_show_patches(tmp_path):
    codes = drawn(6)
    told = CodePatches(reading(codes), FIELD, PATCH, CODES).of_slot(0)
    counts = np.bincount(codes[..., 0].ravel(), minlength=CODES)
    entries = [
        {"code": code, "count": int(counts[code]), "share": 0.1, "likeness": None, **found}
        for code, found in told.items()
    ]
    values = {
        "content": "images", "pixels_per_code": [2, 2], "problem": "tiles", "model": "vqvae", "split": "val", "step": 3,
        "num_codes": CODES, "num_slots": 1, "figures": {"examples": 6, "swap_levels_inside": 3.5},
        "slots": [{"figures": {}, "counts": counts.tolist(), "codes": entries}], "movement": [],
        "swaps": codebook_picture_swaps.study(Painter(), reading(codes), [Swap(0, 4, 0, 1, 3)], (2, 2)),
    }  # fmt: skip
    page = codebook_page.page(values, {})
    assert page.count("<img") == 2 * len(entries) + 3
    assert "2 x 2 pixels" in page
    assert "levels changed by a swap" in page
    codebook_projector.write(str(tmp_path), values, np.zeros([CODES, 1, 2], np.float32))
    sheet = np.asarray(Image.open(tmp_path / "sprites.png"))
    assert sheet.shape == (2 * 16, 3 * 16, 3)
    assert np.unique(sheet[16:, 16:32]).tolist() == [LEVELS[4]]
    assert (tmp_path / "metadata.tsv").read_text().splitlines()[0] == "code\tcount"
    assert 'image_path: "sprites.png"' in (tmp_path / "projector_config.pbtxt").read_text()
