"""The page, its pictures, and the projector's data: whole, offline, and safe whatever the text."""

import html.parser
import io

import numpy as np
import pytest
from PIL import Image

from t2t_vqem.evaluation import codebook_page, codebook_page_text, codebook_pictures, codebook_projector

NASTY = "<script>alert('x')</script> & \"co\"\t|"


def text(name="Hund", count=3, lift=2.5):
    return {"text": name, "count": count, "lift": lift}


def slot(counts, names=("Hund",)):
    figures = {"live_codes": float(np.count_nonzero(counts)), "split_half_tv": 0.25}
    texts = [text(name) for name in names]
    codes = [
        {"code": code, "count": count, "share": count / sum(counts), "likeness": None if code else 0.5}
        | {"windows": texts, "pieces": texts, "source": texts}
        for code, count in enumerate(counts)
        if count
    ]
    half = [count // 2 for count in counts]
    return {"figures": figures, "counts": counts, "half_counts": [half, half], "codes": codes}


@pytest.fixture
def values():
    """A report on two codes of three."""
    return {
        "content": "text", "tokens_per_code": 4, "problem": "toy", "model": "latent_nat", "split": "val", "step": 7,
        "num_codes": 3, "num_slots": 1,
        "figures": {"examples": 5, "live_codes": 2.0, "perplexity_per_code": 0.61234, "split_half_tv": None},
        "slots": [slot([4, 0, 2])],
        "movement": [{"start": 1, "end": 2, "mean": [0.5], "moved": [[0.2, 0.3, 1.0]]}],
        "swaps": {
            "sentences": 1, "changed": 0.5,
            "shown": [{"source": "a", "before": "ein Hund", "after": "ein Mann", "example": 0, "position": 1,
                       "slot": 0, "code": 0, "replacement": 2}],
        },
    }  # fmt: skip


class Reader(html.parser.HTMLParser):
    """Checks that every element is closed in order, and remembers what the page would load."""

    VOID = {"meta", "input", "img"}

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.tags = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(values):
    pictures = codebook_pictures.pictures(values)
    page = codebook_page.page(values, pictures)
    read = Reader(page)
    assert len(read.loads) == len(pictures) == 5
    assert all(load.startswith("data:image/png;base64,") for load in read.loads)
    assert "http" not in page
    assert read.tags.count("tr") == 2 + 1 + 2, "two headings, a swap, and two codes that occur"
    assert "ein <mark>Hund</mark>" in page
    assert "ein <mark>Mann</mark>" in page
    assert "0.612" in page
    assert "None" not in page


def test_text_is_text(values):
    values["slots"] = [slot([4, 0, 2], names=(NASTY,))]
    values["swaps"]["shown"][0] |= {"source": NASTY, "before": NASTY, "after": "ein"}
    page = codebook_page.page(values, {NASTY: b"png"})
    assert Reader(page).tags.count("script") == 1
    assert "alert('x')" not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in page


def test_what_is_not_there_is_left_out(values):
    page = codebook_page.page(values | {"swaps": None, "movement": []}, {})
    assert "One code swapped" not in page
    assert "keeps one checkpoint" in page
    assert Reader(page).tags.count("table") == 1


def test_changed_words_are_marked():
    assert codebook_page_text.marked("a b c", "a x y c d") == (
        "a <mark>b</mark> c",
        "a <mark>x y</mark> c <mark>d</mark>",
    )
    assert codebook_page_text.marked("same words", "same words") == ("same words", "same words")
    assert codebook_page_text.marked("", "<b>") == ("", "<mark>&lt;b&gt;</mark>")


@pytest.mark.parametrize("slots", [1, 3, 12])
@pytest.mark.parametrize("counts", [[4, 0, 2], [1, 1, 1], [0, 50_000, 0]])
def test_pictures_of_any_usage(values, slots, counts):
    values["slots"] = [slot(counts)] * slots
    pngs = codebook_pictures.pictures(values | {"movement": []})
    assert len(pngs) == 4
    for png in pngs.values():
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
        assert (pixels < 200).mean() > 0.005, "something is drawn"


def test_projector_data(values, tmp_path, monkeypatch):
    values["slots"] = [slot([4, 0, 2], names=(NASTY,)), slot([0, 6, 0])]
    places = np.arange(12, dtype=np.float32).reshape(3, 2, 2) / 3
    codebook_projector.write(str(tmp_path), values, places)
    for number in (0, 1):
        vectors = np.loadtxt(tmp_path / f"tensors_{number}.tsv", delimiter="\t")
        np.testing.assert_allclose(vectors, places[:, number], rtol=1e-5)
        head, *rows = (tmp_path / f"metadata_{number}.tsv").read_text().split("\n")[:-1]
        assert head == "code\tcount\ttarget pieces\tsource"
        assert len(rows) == len(places)
        assert all(row.count("\t") == head.count("\t") for row in rows)
        assert [row.split("\t")[:2] for row in rows] == [
            [str(code), str(count)] for code, count in enumerate(values["slots"][number]["counts"])
        ]
    codebook_projector.write(str(tmp_path / "one"), values | {"slots": values["slots"][:1]}, places[:, :1])
    config = (tmp_path / "one" / "projector_config.pbtxt").read_text()
    assert 'tensor_path: "tensors.tsv"' in config
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "metadata.tsv", "projector_config.pbtxt", "tensors.tsv",
    ]  # fmt: skip
    monkeypatch.setattr(codebook_projector, "_MOST", 2)
    codebook_projector.write(str(tmp_path / "one"), values | {"slots": values["slots"][:1]}, places[:, :1])
    rows = (tmp_path / "one" / "metadata.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[0] for row in rows] == ["0", "2"], "the most frequent codes"
    np.testing.assert_allclose(np.loadtxt(tmp_path / "one" / "tensors.tsv"), places[[0, 2], 0], rtol=1e-5)
