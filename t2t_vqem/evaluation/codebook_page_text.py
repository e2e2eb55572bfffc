"""What the page on a codebook says where codes stand for text."""

import difflib
import html
from collections.abc import Mapping
from typing import Any

LIKENESS = "overlap"
HEADS = ("what it stood for", "pieces in it (lift)", "in the source (lift)")
ABOUT = (
    "Overlap: of its most frequent pieces in two halves of the split. Lift: how much oftener the two meet than by "
    "chance; “…” goes on with a word."
)
FIND = "find a code, a piece, a word"
SWAP_HEADS = ("source", "from its true codes", "with one swapped")
ABOUT_SWAPS = (
    "Sentences decoded from the true codes of their reference, and again with one code replaced by the most frequent "
    "other one; what changed is marked."
)


def position(values: Mapping[str, Any]) -> str:
    """Returns what a position of a `codebook_report.Report` is."""
    return f"a position stands for {values['tokens_per_code']} target pieces"


def swap(told: Mapping[str, Any]) -> list[str]:
    """Returns the cells under SWAP_HEADS, as HTML."""
    return [html.escape(told["source"]), *marked(told["before"], told["after"])]


def cells(code: Mapping[str, Any]) -> list[str]:
    """Returns the cells under HEADS, as HTML."""
    return [
        "".join(
            f'<span class="t">{html.escape(t["text"])} <small>{_note(t, kind)}</small></span>'
            for t in code[kind]
        )
        for kind in ("windows", "pieces", "source")
    ]


def marked(before: str, after: str) -> tuple[str, str]:
    """Returns both texts as HTML, with the words marked that only one of them has at its place."""
    words = before.split(), after.split()
    sides: tuple[list[str], list[str]] = [], []
    for kind, *spans in difflib.SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side, own, (start, end) in zip(sides, words, (spans[:2], spans[2:]), strict=True):
            text = html.escape(" ".join(own[start:end]))
            if text:
                side.append(text if kind == "equal" else f"<mark>{text}</mark>")
    return " ".join(sides[0]), " ".join(sides[1])


def _note(text: Mapping[str, Any], kind: str) -> str:
    if kind == "windows":  # nearly all are seen once, which says nothing of chance
        return f"{text['count']}"
    return (
        f"{text['count']} (×{text['lift']:.2g})"
        if text["lift"] < 100
        else f"{text['count']} (×{text['lift']:.0f})"
    )
