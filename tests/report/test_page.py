"""The page for a browser: what it shows is what the run's files hold."""

import base64
import json
import re
from html.parser import HTMLParser

import pytest

from lightning_distill.report import Comparison, Row, write_page

VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """The cells of all tables, the texts, and whether every element that is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.texts, self.sources = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)
        self.texts.append(data)


@pytest.fixture
def run(tmp_path):
    student = Row("student distilled", 519_376, 2.08, 1.13, {"accuracy": 0.8004}, 0.833)
    alone = Row("student alone", 519_376, 2.08, 1.19, {"accuracy": 0.4641}, 0.4518)
    teacher = Row("teacher", 944_912, 3.78, 1.48, {"accuracy": 0.8101})
    facts = {"seed": "0", "test rows": "892", "data": "<script>alert(1)</script> & more"}
    comparison = Comparison("accuracy", True, student, teacher, alone, 0.01, facts=facts)
    comparison.save(tmp_path)
    (tmp_path / "curves.png").write_bytes(b"\x89PNG picture")
    (tmp_path / "config.yaml").write_text("data: <b>bold</b>\n")
    return tmp_path


def test_its_figures_are_those_of_the_report(run):
    page = Page(write_page(run).read_text())
    table = (run / "report.md").read_text().splitlines()
    rows = [line.strip("|").split("|") for line in table if line.startswith("| ")]
    expected = [cell.strip() for row in rows for cell in row if cell.strip()]
    assert [cell for cell in page.cells[: len(expected) + 10] if cell][: len(expected)] == expected
    content = json.loads((run / "report.json").read_text())
    for role in ("teacher", "baseline", "student"):
        assert f"{content[role]['metrics']['accuracy']:.4f}" in page.cells
    everything = "".join(page.texts)
    for sentence in Comparison.load(run / "report.json").verdict():
        assert sentence in everything
    for name, value in content["facts"].items():
        assert name in page.cells and value in everything


def test_it_needs_no_other_file_and_runs_nothing(run):
    text = write_page(run).read_text()
    page = Page(text)
    (source,) = page.sources
    head, _, data = source.partition(",")
    assert head == "data:image/png;base64" and base64.b64decode(data) == b"\x89PNG picture"
    assert "http" not in text and "<script" not in text and "<b>bold" not in text
    assert "<b>bold</b>" in "".join(page.texts)
    # Narrow screens and dark ones.
    assert 'name="viewport"' in text and "color-scheme: light dark" in text
    assert text.count("from report.json") == 2 and "from curves.png" in text


def test_each_bar_is_as_long_as_its_share(run):
    text = write_page(run).read_text()
    assert re.findall(r"width:([\d.]+)%", text) == ["81.0", "46.4", "80.0"]


def test_what_is_not_there_is_left_out(tmp_path):
    row = Row("student", 10, 0.1, None, {"perplexity": 42.0})
    Comparison("perplexity", False, row).save(tmp_path)
    text = write_page(tmp_path).read_text()
    Page(text)
    assert "42.0000" in text and 'class="bar"' not in text and "<img" not in text


def test_samples_are_shown_as_they_were_written(run):
    content = json.loads((run / "report.json").read_text())
    sample = {"prompt": "def f(", "text": "def f(x): ...", "continuations": {"teacher": "x < y"}}
    (run / "report.json").write_text(json.dumps({**content, "samples": [sample]}))
    page = Page(write_page(run).read_text())
    assert "def f(" in page.texts and "x < y" in page.texts
