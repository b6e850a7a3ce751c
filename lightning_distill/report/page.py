"""The report as one page for a browser, made of the files of a run and of nothing else."""

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from .class_tables import class_tables, predictions_of
from .comparison import Comparison
from .predictions import PREDICTIONS

PAGE = "report.html"
# Pictures of a run, with what stands above them.
PICTURES = {
    "curves.png": "Curves of every term and metric",
    "layer_similarity.png": "Similarity of layers (CKA)",
    "profile.png": "Where the time of a step went",
}
# Texts of a run, which are folded up.
TEXTS = {"config.yaml": "Configuration", "log.txt": "Log"}
# A log may be longer than anybody reads.
LONGEST_TEXT = 200_000
# Colours of the system, which are dark where the reader's are; pictures have a white ground.
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem;
  background: Canvas; color: CanvasText; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid color-mix(in srgb, CanvasText 20%, Canvas); }
th:first-child, td:first-child { text-align: left; }
.bar { height: .7rem; background: #4477aa; border-radius: 2px; }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .3rem .8rem;
  align-items: center; }
img { max-width: 100%; background: white; border-radius: 4px; }
pre { overflow-x: auto; padding: .6rem; font-size: .85rem;
  background: color-mix(in srgb, CanvasText 7%, Canvas); }
.from { color: color-mix(in srgb, CanvasText 60%, Canvas); font-size: .85rem; }
"""


def write_page(directory: Path) -> Path:
    """Write `report.html`: one file that needs no other, for wide and narrow screens.

    Args:
        directory: of a run, which holds `report.json`; pictures and texts that are not there are
            left out.
    """
    path = directory / "report.json"
    comparison = Comparison.load(path)
    parts = [
        f"<h1>{escape(_title(comparison))}</h1>",
        *(f"<p>{escape(sentence)}</p>" for sentence in comparison.verdict()),
        *_bars(comparison),
        *_section("On the test rows", path.name, _table(*comparison.cells())),
        *_section("The run", path.name, _facts(comparison)),
    ]
    models = predictions_of(directory)
    titles = {model: row.name for model in models if (row := getattr(comparison, model))}
    models = {model: found for model, found in models.items() if model in titles}
    for title, note, heads, lines in class_tables(models, titles):
        content = [f"<p>{escape(note)}</p>", *_table(heads, lines)]
        parts += _section(title, PREDICTIONS, content)
    for name, title in PICTURES.items():
        if (directory / name).is_file():
            data = base64.b64encode((directory / name).read_bytes()).decode()
            picture = f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
            parts += _section(title, name, [picture])
    samples = json.loads(path.read_text(encoding="utf-8")).get("samples", [])
    if samples:
        parts += _section("What the models write", path.name, _samples(samples))
    for name, title in TEXTS.items():
        if (directory / name).is_file():
            text = (directory / name).read_text(encoding="utf-8", errors="replace")[-LONGEST_TEXT:]
            folded = f"<details><summary>show</summary><pre>{escape(text)}</pre></details>"
            parts += _section(title, name, [folded])
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(_title(comparison))}</title><style>{STYLE}</style></head><body>"
    )
    to = directory / PAGE
    to.write_text("\n".join([head, *parts, "</body></html>", ""]), encoding="utf-8")
    return to


def _title(comparison: Comparison) -> str:
    return f"Report: {comparison.metric} {comparison.value(comparison.student):.4f}"


def _section(title: str, file: str, content: Iterable[str]) -> list[str]:
    source = f'<p class="from">from {escape(file)}</p>'
    return [f"<section><h2>{escape(title)}</h2>{source}", *content, "</section>"]


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    def row(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{escape(c)}</{kind}>" for c in cells) + "</tr>"

    rows = [row(heads, "th"), *(row(line, "td") for line in lines)]
    return ['<div class="wide"><table>', *rows, "</table></div>"]


def _bars(comparison: Comparison) -> list[str]:
    """The metric that decides, where it is a share."""
    shown = [
        (row.name, comparison.value(row))
        for row in comparison.rows
        if comparison.metric in row.metrics
    ]
    if len(shown) < 2 or not all(0 <= value <= 1 for _, value in shown):
        return []
    lines = [
        f"<span>{escape(name)}</span>"
        f'<div class="bar" style="width:{100 * value:.1f}%"></div><span>{value:.4f}</span>'
        for name, value in shown
    ]
    return ['<div class="bars">', *lines, "</div>"]


def _facts(comparison: Comparison) -> list[str]:
    return _table(["", ""], [[name, str(value)] for name, value in comparison.facts.items()])


def _samples(samples: Sequence[dict[str, object]]) -> list[str]:
    found = []
    for i, sample in enumerate(samples, 1):
        found.append(f"<h3>{i}</h3><pre>{escape(str(sample['prompt']))}</pre>")
        continuations = sample["continuations"]
        assert isinstance(continuations, dict)
        for name, text in continuations.items():
            found.append(f"<p>{escape(str(name))}</p><pre>{escape(str(text))}</pre>")
    return found
