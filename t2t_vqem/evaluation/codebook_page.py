"""The report on a codebook as one page of HTML that needs nothing beside itself."""

import base64
import html
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from t2t_vqem.evaluation import codebook_page_pictures, codebook_page_text

_CSS = """
:root { color-scheme: light; --ink: #1c2430; --dim: #64748b; --line: #e2e8f0; --accent: #1f6fb2; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f8fa; color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 40px 0 6px; }
p { margin: 0 0 14px; color: var(--dim); max-width: 82ch; }
.tiles, .pictures { display: grid; gap: 12px; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); }
.pictures { grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); }
.tile, figure, .table { background: #fff; border: 1px solid var(--line); border-radius: 8px; margin: 0; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.tile span { font-weight: 600; }
.tile small { display: block; color: var(--dim); line-height: 1.35; margin-top: 2px; }
figure { padding: 10px; }
figure img { width: 100%; display: block; }
figcaption { color: var(--dim); font-size: 13px; padding: 6px 4px 0; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 7px 10px; border-bottom: 1px solid var(--line); }
th { font-size: 13px; color: var(--dim); white-space: nowrap; position: sticky; top: 0; background: #fff; }
th[data-sort] { cursor: pointer; }
th[data-sort]:hover { color: var(--accent); }
tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td small { color: var(--dim); white-space: nowrap; }
.t { display: inline-block; margin: 0 10px 2px 0; white-space: pre-wrap; }
td img { image-rendering: pixelated; height: 40px; }
td img.whole { height: 128px; }
mark { background: #ffe3a3; border-radius: 3px; padding: 0 2px; }
input { font: inherit; padding: 7px 10px; margin: 0 10px 10px 0; width: min(360px, 100%);
  border: 1px solid #cbd5e1; border-radius: 6px; }
"""

_SCRIPT = """
const rows = [...document.querySelectorAll("#codes tbody tr")];
const find = document.getElementById("find"), said = document.getElementById("said");
const texts = rows.map(row => row.textContent.toLowerCase());
find.addEventListener("input", () => {
  const wanted = find.value.toLowerCase();
  let shown = 0;
  rows.forEach((row, i) => { row.hidden = !texts[i].includes(wanted); shown += !row.hidden; });
  said.textContent = shown + " of " + rows.length;
});
document.querySelectorAll("#codes th[data-sort]").forEach((head, column) => {
  let up = false;
  head.addEventListener("click", () => {
    up = !up;
    const value = row => parseFloat(row.cells[column].dataset.value);
    rows.sort((a, b) => (up ? 1 : -1) * (value(a) - value(b)));
    document.querySelector("#codes tbody").append(...rows);
  });
});
"""

# What the page says of codes, by what they are codes of.
_WORDS = {"text": codebook_page_text, "images": codebook_page_pictures}

# Figure, what the page calls it, and what it says.
_TILES = (
    ("latents", "positions", "real positions of the split that were given a code"),
    ("live_codes", "live codes", "codes that occur at all"),
    ("size", "size", "codes that the codebook has come to have, of the K there is room for"),
    ("codebook_perplexity", "perplexity", "so many evenly used codes have the same entropy"),
    ("perplexity_per_code", "perplexity / K", "1 where every code is used alike"),
    ("effective_codes", "effective codes", "exp(entropy of the E-step): 1 is a hard choice"),
    ("quantization_error", "quantisation error", "|x − code|² / |x|²"),
    ("movement", "movement", "mean way of a code since the checkpoint before, in norms of a code"),
    ("split_half_tv", "usage of two halves apart", "total variation: 0 for equal usage, 1 for disjoint"),
    ("split_half_tv_by_chance", "… by chance", "what independent draws of as many codes give"),
    ("split_half_spearman", "rank correlation", "of the codes' counts in two halves of the split"),
    ("split_half_pearson", "log-count correlation", "of log(1 + count) in the two halves"),
    ("top_overlap", "same top pieces", "overlap of each code's most frequent pieces in the two halves"),
    (
        "top_overlap_by_chance",
        "… of other codes",
        "the same of two codes that have nothing to do with each other",
    ),
    ("patch_likeness", "same mean patch", "cosine of each code's mean patches in the two halves"),
    (
        "patch_likeness_by_chance",
        "… of other codes",
        "the same of two codes that have nothing to do with each other",
    ),
    ("swap_levels_inside", "levels changed by a swap", "of 255, in the patch whose code is another"),
    ("swap_levels_outside", "… elsewhere", "of 255, in the rest of the picture"),
    ("swap_changed", "changed by a swap", "share of output tokens that one other code changes"),
    ("swap_changed_inside", "… in its own window", "of the tokens that the code stands for"),
    ("swap_changed_outside", "… elsewhere", "of all others"),
)


def page(values: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """Returns the page.

    Args:
      values: of a `codebook_report.Report`.
      pictures: PNGs by their captions.
    """
    words = _WORDS[values["content"]]
    title = f"Codebook of {values['model']} on {values['problem']}"
    slots = f", {values['num_slots']} slots a position" if values["num_slots"] > 1 else ""
    facts = (
        f"{values['split']}, {values['figures']['examples']} examples; step {values['step']}; "
        f"{values['num_codes']} codes{slots}; {words.position(values)}."
    )
    sections = [
        f"<h1>{_escaped(title)}</h1><p>{_escaped(facts)}</p>",
        _tiles(values["figures"]),
        "<h2>In pictures</h2>",
        _pictures(pictures),
        "" if values["movement"] else "<p>No movement: the run keeps one checkpoint alone.</p>",
        _swaps(values["swaps"], words),
        _codes(values["slots"], words),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escaped(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{_CSS}</style></head>\n'
        f"<body><main>{''.join(sections)}</main>\n<script>{_SCRIPT}</script></body></html>\n"
    )


def _swaps(swaps: Mapping[str, Any] | None, words: ModuleType) -> str:
    if not (swaps and swaps["shown"]):
        return ""
    rows = []
    for swap in swaps["shown"]:
        slot = f", slot {swap['slot']}" if any(other["slot"] for other in swaps["shown"]) else ""
        what = f"{swap['code']} → {swap['replacement']}, position {swap['position'] + 1}{slot}"
        source, *outputs = words.swap(swap)
        rows.append(
            "<tr>" + "".join(f"<td>{cell}</td>" for cell in (source, _escaped(what), *outputs)) + "</tr>"
        )
    source, *outputs = words.SWAP_HEADS
    heads = "".join(f"<th>{name}</th>" for name in (source, "code", *outputs))
    return (
        f"<h2>One code swapped</h2><p>{_escaped(words.ABOUT_SWAPS)}</p>"
        f'<div class="table"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _escaped(text: object) -> str:
    return html.escape(str(text))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 2 else f"{value:.3g}"


def _tiles(figures: Mapping[str, float | None]) -> str:
    told = [(figures[key], *texts) for key, *texts in _TILES if figures.get(key) is not None]
    tiles = (
        f'<div class="tile"><span>{_escaped(name)}</span><b>{_number(value)}</b><small>{_escaped(text)}</small></div>'
        for value, name, text in told
    )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _pictures(pictures: Mapping[str, bytes]) -> str:
    figures = (
        f'<figure><img alt="{_escaped(caption)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption>{_escaped(caption)}</figcaption></figure>"
        for caption, png in pictures.items()
    )
    return f'<div class="pictures">{"".join(figures)}</div>'


def _codes(slots: Sequence[Mapping[str, Any]], words: ModuleType) -> str:
    several = len(slots) > 1
    heads = [("slot", True)] * several + [
        ("code", True),
        ("positions", True),
        ("share", True),
        (words.LIKENESS, True),
    ]
    heads += [(head, False) for head in words.HEADS]
    head = "".join(f'<th class="n" data-sort>{n}</th>' if number else f"<th>{n}</th>" for n, number in heads)
    rows = (
        "<tr>" + (_cell(number, str(number)) if several else "") + _code_cells(code, words) + "</tr>"
        for number, slot in enumerate(slots)
        for code in slot["codes"]
    )
    return (
        f"<h2>Codes</h2><p>Those that occur, the most frequent first. {_escaped(words.ABOUT)} A click on a heading "
        "sorts.</p>"
        f'<input id="find" type="search" placeholder="{_escaped(words.FIND)}"><small id="said"></small>'
        f'<div class="table"><table id="codes"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def _code_cells(code: Mapping[str, Any], words: ModuleType) -> str:
    likeness = code["likeness"]
    numbers = [
        _cell(code["code"], str(code["code"])),
        _cell(code["count"], f"{code['count']:,}"),
        _cell(code["share"], f"{code['share']:.2%}"),
        _cell(-2 if likeness is None else likeness, "–" if likeness is None else f"{likeness:.2f}"),
    ]
    return "".join(numbers) + "".join(f"<td>{cell}</td>" for cell in words.cells(code))


def _cell(value: float, shown: str) -> str:
    return f'<td class="n" data-value="{value}">{shown}</td>'
