"""The report as one page for a browser, made of the files of a run and of nothing else."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Any

from .class_tables import class_tables, MODELS, predictions_of, ROW
from .comparison import Comparison
from .curve_panels import curve_panels
from .curves import read_stages
from .layer_similarity import NAME as SIMILARITY, TRAINED
from .page_style import STYLE
from .predictions import PREDICTIONS, Predictions
from .profile import Profile
from .row_texts import ROW_TEXTS
from .side_by_side import INTERVAL, side_by_side

# Among a comparison's `origin`.
COMMAND = "command"
PAGE, REPORT, RESULT = "report.html", "report.json", "result.json"
# Texts of a run, which are folded up.
TEXTS = {"config.yaml": "Configuration", "log.txt": "Log"}
# A log may be longer than anybody reads.
LONGEST_TEXT = 200_000
NUMBER = re.compile(r"[-+]?\d[\d,.]*(e[-+]?\d+)?( ?%)?(–[-+]?\d[\d,.]*)?")


def write_page(directory: Path) -> Path:
    """Write `report.html`: one file that needs no other, for wide and narrow screens.

    Args:
        directory: of a run, which holds `report.json`; what other files would say is left out if
            they are not there.
    """
    comparison = Comparison.load(directory / REPORT)
    models = predictions_of(directory)
    models = {model: found for model, found in models.items() if getattr(comparison, model)}
    title = "Distillation" if comparison.teacher is not None else "Training"
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(_short_title(comparison))}</title><style>{STYLE}</style></head><body>"
    )
    parts = [
        head,
        f"<h1>{title}: {escape(_short_title(comparison))}</h1>",
        f'<p class="from">run {escape(directory.absolute().name)}; figures from {REPORT}</p>',
        *_cards(comparison),
        *(f"<p>{escape(sentence)}</p>" for sentence in comparison.verdict()),
        *_bars(comparison),
        *_models(comparison, models),
        *_curves(comparison, directory),
        *_classes(comparison, models, directory),
        *_samples(directory),
        *_similarity(directory),
        *_time(comparison, directory),
        *_origin(comparison),
        *_texts(directory),
        "</body></html>\n",
    ]
    to = directory / PAGE
    to.write_text("\n".join(parts), encoding="utf-8")
    return to


def _short_title(comparison: Comparison) -> str:
    return f"{comparison.metric} {comparison.value(comparison.student):.4f}"


def _section(title: str, files: Iterable[str], content: Iterable[str]) -> list[str]:
    source = f'<p class="from">from {escape(", ".join(files))}</p>'
    return [f"<section><h2>{escape(title)}</h2>{source}", *content, "</section>"]


def _table(
    heads: Sequence[str],
    lines: Sequence[Sequence[str]],
    kind: str = "",
    words: bool = False,
    below: Sequence[str] = (),
) -> list[str]:
    """A table.

    Args:
        heads: of the columns; none where all are empty.
        lines: their cells. Figures stand to the right.
        kind: the class of the style.
        words: whether columns without a figure are text, and stand to the left.
        below: a text below each line, over its whole width; by default none.
    """
    texts = [
        i
        for i in range(len(heads))
        if words and not any(NUMBER.fullmatch(line[i]) for line in lines)
    ]

    def cell(i: int, text: str, tag: str, first: str) -> str:
        named = []
        if i in texts:
            named.append("text")
        if tag == "td" and i and not words and text and not NUMBER.fullmatch(text):
            named.append("why")
        elif tag == "td" and first == INTERVAL:
            named.append("bare")
        attribute = f' class="{" ".join(named)}"' if named else ""
        return f"<{tag}{attribute}>{escape(text)}</{tag}>"

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(cell(i, c, tag, cells[0]) for i, c in enumerate(cells)) + "</tr>"

    named = f' class="{kind}"' if kind else ""
    rows = [row(heads, "th")] if any(heads) else []
    for line, text in zip_longest(lines, below):
        rows.append(row(line, "td"))
        if text:
            across = f'<td class="below" colspan="{len(heads)}">'
            rows.append(f"<tr>{across}{escape(text)}</td></tr>")
    return [f'<div class="wide"><table{named}>', *rows, "</table></div>"]


def _cards(comparison: Comparison) -> Iterator[str]:
    """The few figures that decide."""
    student, teacher = comparison.student, comparison.teacher
    cards = [(f"{comparison.value(student):.4f}", f"{comparison.metric} of the {student.name}")]
    retained = comparison.retained(student)
    if retained is not None:
        cards.append((f"{retained:.1%}", f"of the teacher's {comparison.metric}"))
    if comparison.gap_closed is not None and comparison.gap_closed >= 0:
        cards.append((f"{comparison.gap_closed:.0%}", "of the gap to the teacher closed"))
    if teacher is not None and teacher.parameters:
        share = student.parameters / teacher.parameters
        cards.append((f"{share:.0%}", "of the teacher's parameters"))
    quiet = not any(row.was_disturbed for row in comparison.rows)
    if quiet and teacher is not None and teacher.latency_ms and student.latency_ms:
        share = student.latency_ms / teacher.latency_ms
        cards.append((f"{share:.0%}", "of the teacher's time for one row"))
    yield '<div class="cards">'
    yield from (f"<div><b>{value}</b>{escape(text)}</div>" for value, text in cards)
    yield "</div>"


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


def _files_of(models: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(str(Path(MODELS[model][0], PREDICTIONS)) for model in models))


def _models(comparison: Comparison, models: Mapping[str, Predictions]) -> Iterator[str]:
    heads, lines, note = side_by_side(comparison, models)
    content = [*_table(heads, lines, "models"), f"<p>{escape(note)}</p>"]
    yield from _section("On the test rows", [REPORT, *_files_of(models)], content)
    names = sorted({name for row in comparison.rows for name in row.parts})
    if names:
        values = [[row.parts.get(name) for row in comparison.rows] for name in names]
        cells = [["" if value is None else f"{value:.4f}" for value in own] for own in values]
        lines = [[name, *own] for name, own in zip(names, cells, strict=True)]
        yield from _section(f"{comparison.metric} by kind", [REPORT], _table(heads, lines))


def _curves(comparison: Comparison, directory: Path) -> Iterator[str]:
    # A run that is older than this entry says nothing of where they lie.
    curves = comparison.curves or {comparison.student.name: [(0, "metrics.csv")]}
    stages = {name: [(n, directory / path) for n, path in own] for name, own in curves.items()}
    data = {name: series for name, own in stages.items() if (series := read_stages(own))}
    begins = sorted({before for own in stages.values() for before, _ in own if before})
    metric = comparison.monitor.removeprefix("val/")
    teacher = None if comparison.teacher is None else comparison.teacher.metrics.get(metric)
    monitored = (comparison.monitor, comparison.mode)
    panels = list(curve_panels(data, comparison.weights, begins, monitored, teacher))
    if panels:
        files = [path for own in curves.values() for _, path in own if (directory / path).is_file()]
        yield from _section("Curves of every term and metric, by step", files, panels)


def _classes(
    comparison: Comparison, models: Mapping[str, Predictions], directory: Path
) -> Iterator[str]:
    titles = {model: getattr(comparison, model).name for model in models}
    path = directory / ROW_TEXTS
    texts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    yield '<div class="beside">'
    for title, of, note, heads, lines in class_tables(models, titles):
        single = heads[0] == ROW
        below = [texts.get(line[0], "") for line in lines] if single else []
        files = [*_files_of(of), *([ROW_TEXTS] if any(below) else [])]
        said = f"{note} Below stands the text, as the student reads it." if any(below) else note
        content = [f"<p>{escape(said)}</p>", *_table(heads, lines, words=True, below=below)]
        yield from _section(title, files, content)
    yield "</div>"


def _samples(directory: Path) -> Iterator[str]:
    samples = json.loads((directory / REPORT).read_text(encoding="utf-8")).get("samples", [])
    found = []
    for i, sample in enumerate(samples, 1):
        parts = {"prompt": sample["prompt"], "the row itself": sample["text"]}
        found.append(f"<h3>{i}</h3>")
        for name, text in (parts | sample["continuations"]).items():
            found.append(
                f'<p>{escape(str(name))}</p><pre class="wrapped">{escape(str(text))}</pre>'
            )
    if found:
        yield from _section("What the models write", [REPORT], found)


def _similarity(directory: Path) -> Iterator[str]:
    """How alike layers are after the training, and were where a term paired them by it."""
    for path in sorted(directory.glob(f"**/{SIMILARITY}.json")):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for name, one in content.items():
            pairs = {tuple(pair) for pair in one["pairs"]}
            of_student, of_teacher = one["students"], one["teachers"]
            heads = (f"<th>{escape(t)}</th>" for t in _ends(of_teacher))
            rows = ["<tr><th></th>", *heads, "</tr>"]
            for s, (layer, own) in enumerate(zip(_ends(of_student), one["cka"], strict=True)):
                rows.append(f"<tr><td>{escape(layer)}</td>")
                for t, value in enumerate(own):
                    share = 70 * min(max(value, 0), 1)
                    kind = ' class="pair"' if (s, t) in pairs else ""
                    color = f"color-mix(in srgb, var(--c0) {share:.0f}%, Canvas)"
                    rows.append(f'<td{kind} style="background:{color}">{value:.2f}</td>')
                rows.append("</tr>")
            when = "After the training, on some test rows" if one.get(TRAINED) else "Before it"
            of = "" if one.get(TRAINED) else f", of the term {name}"
            note = (
                f"{when}{of}: a line for each of {of_student[0]} to {of_student[-1]}, a "
                f"column for each of {of_teacher[0]} to {of_teacher[-1]}. 1 is alike (CKA; "
                "Kornblith et al., 2019)."
            )
            note += " Layers that a term compares are framed." if pairs else ""
            content_ = [f"<p>{escape(note)}</p>", '<div class="wide"><table>', *rows]
            where = [str(path.relative_to(directory))]
            yield from _section("Similarity of layers", where, [*content_, "</table></div>"])


def _ends(layers: Sequence[str]) -> list[str]:
    """Names of layers without what all of them begin with."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*layers, strict=False))
    begin = "".join(letters[0] for letters in alike) if len(layers) > 1 else ""
    # Not within a number.
    cut = max(begin.rfind("["), begin.rfind(".")) + 1
    return [layer[cut:].rstrip("]") if cut else layer for layer in layers]


def _time(comparison: Comparison, directory: Path) -> Iterator[str]:
    """How long the trainings took, and where the time of their steps went."""
    lines, files = [], []
    for role, (folder, of) in MODELS.items():
        path, row = directory / folder / RESULT, getattr(comparison, role)
        if of == "student" and row is not None and path.is_file():
            done = json.loads(path.read_text(encoding="utf-8"))
            steps, seconds = done["steps"], done["seconds"]
            speed = f"{steps / seconds:,.1f}" if seconds else ""
            lines.append([row.name, f"{steps:,}", f"{seconds:,.0f}", speed])
            files.append(str(path.relative_to(directory)))
    if lines:
        heads = ["", "steps", "seconds", "steps a second"]
        yield from _section("Time of the trainings", files, _table(heads, lines))
    profile = Profile.load(directory)
    if profile is None:
        return
    content = [f"<p>{escape(sentence)}</p>" for sentence in profile.sentences()]
    if profile.times.steps:
        content += _table(["part", "", "ms a step", "share"], profile.cells(), words=True)
    yield from _section("Where the time of a step went", ["profile.json"], content)


def _origin(comparison: Comparison) -> Iterator[str]:
    facts = [[name, str(value)] for name, value in comparison.facts.items()]
    origin = [[name, str(value)] for name, value in comparison.origin.items() if name != COMMAND]
    prints = [
        [f"weights of {r.name}, SHA-256", r.fingerprint] for r in comparison.rows if r.fingerprint
    ]
    content = _table(["", ""], [*facts, *origin, *prints], "made", words=True)
    if comparison.origin.get(COMMAND):
        command = f'<pre class="wrapped">{escape(comparison.origin[COMMAND])}</pre>'
        content = [command, *content]
    yield from _section("How it was made", [REPORT], content)


def _texts(directory: Path) -> Iterator[str]:
    for name, title in TEXTS.items():
        if (directory / name).is_file():
            text = (directory / name).read_text(encoding="utf-8", errors="replace")[-LONGEST_TEXT:]
            folded = f"<details><summary>show</summary><pre>{escape(text)}</pre></details>"
            yield from _section(title, [name], [folded])
