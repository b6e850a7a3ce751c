"""The page for a browser: what it shows is what the run's files hold."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from safetensors.numpy import save_file

from lightning_distill.callbacks.step_profile import PHASES, StepTimes
from lightning_distill.report import Comparison, PREDICTIONS, Predictions, Profile, Row, write_page
from lightning_distill.report.page_style import STYLE

VOID = {"meta", "img", "link", "br"}
ROWS, LABELS = np.arange(40), np.arange(40) % 3
COSTS = {
    "teacher": (2_500_000, 11.5, 3.25, 4.5, 80.25, 95.5, 12.125),
    "student alone": (1_000_000, 4.5, 1.19, 1.5, 20.5, 22.75, 5.25),
    "student distilled": (1_100_000, 4.6, 1.13, 1.45, 20.25, 22.5, 5.125),
}


class Page(HTMLParser):
    """Tables as lists of lines, texts, and whether every element that is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.texts, self.sources = [], {}, [], []
        self.title, self.files = "", {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag == "tr":
            self.tables.setdefault(self.title, []).append([])
        if tag in ("td", "th"):
            self.tables[self.title][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        where = self.open[-1] if self.open else ""
        if where in ("td", "th"):
            self.tables[self.title][-1][-1] += data
        if where == "h2":
            self.title = data
        if data.startswith("from "):
            self.files[self.title] = data.removeprefix("from ").split(", ")
        self.texts.append(data)

    @property
    def text(self):
        return "".join(self.texts)

    def lines(self, title):
        """The lines of a table by their first cells, in order where there are several."""
        found = {}
        for first, *rest in self.tables[title]:
            found.setdefault(first, []).append(rest)
        return found


def predict(folder, of, wrong, confidence):
    folder.mkdir(exist_ok=True)
    predicted = LABELS.copy()
    predicted[:wrong] = (predicted[:wrong] + 1) % 3
    values = {"row": ROWS, "label": LABELS, "predicted": predicted}
    values["confidence"] = np.full(40, confidence, np.float32)
    return {f"{of}.{name}": value for name, value in values.items()}


INTERVALS = {
    "teacher": {"accuracy": [0.7695, 0.9604]},
    "student alone": {"accuracy": [0.2634, 0.5540], "agreement": [0.3520, 0.6480]},
    "student distilled": {"accuracy": (0.5981, 0.8581), "agreement": (0.7093, 0.9294)},
}


@pytest.fixture
def run(tmp_path):
    about = {"classes": json.dumps(["bad", "good", "odd"])}
    both = {**predict(tmp_path, "student", 10, 0.9), **predict(tmp_path, "teacher", 4, 0.8)}
    save_file(both, tmp_path / PREDICTIONS, about)
    alone = tmp_path / "baseline"
    save_file(predict(alone, "student", 24, 0.7), alone / PREDICTIONS, about)

    def row(name, accuracy, agreement=None, **more):
        flops, size, median, p95, of_32, p95_of_32, memory = COSTS[name]
        measured = {
            "flops": flops,
            "latency_p95_ms": p95,
            "latency_32_ms": of_32,
            "latency_32_p95_ms": p95_of_32,
            "memory_32_mb": memory,
            "fingerprint": f"of {name}",
            "intervals": INTERVALS[name],
        }
        metrics = {"accuracy": accuracy, "brier": accuracy / 7}
        return Row(name, 519_376, size, median, metrics, agreement, **{**measured, **more})

    comparison = Comparison(
        "accuracy",
        True,
        row("student distilled", 0.75, 0.85, validation=0.7812, validation_mode="max"),
        row("teacher", 0.9),
        row("student alone", 0.4, 0.5, latency_32_p95_ms=None,
            missing={"latency_32_p95_ms": "only 7 runs were made"}),
        0.01,
        facts={"seed": "0", "test rows": "892", "data": "<script>alert(1)</script> & more"},
        origin={"command": "lightning-distill seed=3 'a=b c'", "versions": "torch 2.0"},
        curves={"distilled": [(0, "metrics.csv")], "student alone": [(0, "baseline/metrics.csv")]},
        weights={"distilled": {"soft_target": 0.9}},
        monitor="val/accuracy",
    )  # fmt: skip
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,train/soft_target,val/accuracy\n0,10,5.5,\n0,20,,0.7812\n0,30,2.5,0.7\n"
    )
    (alone / "metrics.csv").write_text("epoch,step,val/accuracy\n0,20,0.4123\n")
    for folder, steps, seconds in ((tmp_path, 1200, 50.0), (alone, 900, 20.0)):
        result = {"steps": steps, "seconds": seconds}
        (folder / "result.json").write_text(json.dumps(result))
    comparison.save(tmp_path)
    (tmp_path / "config.yaml").write_text("data: <b>bold</b>\n")
    return tmp_path


def test_its_figures_are_those_of_the_runs_files(run):
    page = Page(write_page(run).read_text())
    content = json.loads((run / "report.json").read_text())
    models = [content[role] for role in ("teacher", "baseline", "student")]
    lines = page.lines("On the test rows")
    assert lines[""] == [[model["name"] for model in models]]

    def figures(title, of, how):
        assert lines[title] == [["" if of(m) is None else format(of(m), how) for m in models]]

    figures("accuracy", lambda m: m["metrics"]["accuracy"], ".4f")
    figures("brier", lambda m: m["metrics"]["brier"], ".4f")
    figures("agreement with the teacher", lambda m: m["agreement"], ".4f")
    figures("accuracy on the validation rows", lambda m: m["validation"], ".4f")
    figures("parameters", lambda m: m["parameters"], ",")
    figures("on disk, MB", lambda m: m["size_mb"], ".2f")
    figures("MFLOPs of one row", lambda m: m["flops"] / 1e6, ".2f")
    figures("latency of one row, median, ms", lambda m: m["latency_ms"], ".2f")
    figures("latency of one row, 95th percentile, ms", lambda m: m["latency_p95_ms"], ".2f")
    figures("latency of 32 rows, median, ms", lambda m: m["latency_32_ms"], ".2f")
    figures("peak memory of 32 rows, MB", lambda m: m["memory_32_mb"], ".1f")
    figures("rows a second, 32 at once", lambda m: 32_000 / m["latency_32_ms"], ",.0f")
    # What was not measured says why.
    (slow,) = lines["latency of 32 rows, 95th percentile, ms"]
    assert slow == ["95.50", "only 7 runs were made", "22.50"]
    assert lines["share of the teacher's accuracy"] == [["", "44.4%", "83.3%"]]
    assert lines["gap closed"] == [["", "", f"{content['gap_closed']:.0%}"]] == [["", "", "70%"]]
    of_right, of_agreement = lines["its 95 % interval"]
    assert of_right == ["0.7695–0.9604", "0.2634–0.5540", "0.5981–0.8581"]
    assert of_agreement == ["", "0.3520–0.6480", "0.7093–0.9294"]
    # From the rows.
    folders = [(run, "teacher"), (run / "baseline", "student"), (run, "student")]
    kept = [Predictions.load(folder, of) for folder, of in folders]
    assert lines["calibration error"] == [[f"{one.calibration_error:.4f}" for one in kept]]
    assert "No interval is known of brier: what single rows add to it" in page.text
    for sentence in Comparison.load(run / "report.json").verdict():
        assert sentence in page.text


def test_times_of_a_busy_machine_are_not_compared(run):
    quiet = write_page(run).read_text()
    assert "<b>35%</b>of the teacher&#x27;s time for one row" in quiet
    assert "The machine was busy" not in quiet
    content = json.loads((run / "report.json").read_text())
    content["student"]["latency_p95_ms"] = 3.5
    (run / "report.json").write_text(json.dumps(content))
    busy = write_page(run).read_text()
    assert "time for one row" not in busy and "The machine was busy while times were" in busy


def test_it_says_how_the_run_was_made_and_how_long_it_took(run):
    page = Page(write_page(run).read_text())
    content = json.loads((run / "report.json").read_text())
    made = page.lines("How it was made")
    for name, value in content["facts"].items():
        assert made[name] == [[value]]
    assert made["versions"] == [["torch 2.0"]]
    assert made["weights of student distilled, SHA-256"] == [["of student distilled"]]
    assert "lightning-distill seed=3 'a=b c'" in page.text
    assert page.lines("Time of the trainings") == {
        "": [["steps", "seconds", "steps a second"]],
        "student alone": [["900", "20", "45.0"]],
        "student distilled": [["1,200", "50", "24.0"]],
    }


def test_every_section_names_its_files(run):
    page = Page(write_page(run).read_text())
    assert set(page.tables) <= set(page.files)
    assert page.files["On the test rows"] == [
        "report.json", PREDICTIONS, f"baseline/{PREDICTIONS}"]  # fmt: skip
    curves = "Curves of every term and metric, by step"
    assert page.files[curves] == ["metrics.csv", "baseline/metrics.csv"]
    assert page.files["Time of the trainings"] == ["baseline/result.json", "result.json"]
    assert page.files["What is taken for what: teacher"] == [PREDICTIONS]
    for files in page.files.values():
        for file in files:
            assert (run / file).is_file(), file


def test_it_needs_no_other_file_and_runs_nothing(run):
    text = write_page(run).read_text()
    page = Page(text)
    assert page.sources == []
    assert "http" not in text and "<script" not in text and "<b>bold" not in text
    assert "<b>bold</b>" in page.text
    # Narrow screens and dark ones.
    assert 'name="viewport"' in text and "@media (max-width: 40rem)" in text
    assert "color-scheme: light dark" in text and "prefers-color-scheme: dark" in text


def luminance(color):
    """Of a colour as in #0072b2, by the guidelines for accessible content (WCAG 2.2)."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return np.dot(parts, [0.2126, 0.7152, 0.0722])


def test_lines_are_seen_on_a_light_and_on_a_dark_ground():
    light, dark = re.findall(r"--c0: (#\w+); --c1: (#\w+); --c2: (#\w+);", STYLE)
    for color in light:
        assert 1.05 / (luminance(color) + 0.05) > 3
    for color in dark:
        assert (luminance(color) + 0.05) / (luminance("#121212") + 0.05) > 3


def test_the_curves_are_those_of_the_runs_files(run):
    text = write_page(run).read_text()
    # The best of each, which is written at its dot.
    assert re.findall(r'r="4.5"/>\n<text [^>]*>([\d.]+)<', text) == ["0.7812", "0.4123"]
    assert text.count('class="line c0 weighted" points=') == 1
    assert "the same, times the weight of the term" in text


def test_each_bar_is_as_long_as_its_share(run):
    text = write_page(run).read_text()
    assert re.findall(r"width:([\d.]+)%", text) == ["90.0", "40.0", "75.0"]


def test_what_is_not_there_is_left_out(tmp_path):
    row = Row("student", 10, 0.1, None, {"perplexity": 42.0})
    Comparison("perplexity", False, row).save(tmp_path)
    text = write_page(tmp_path).read_text()
    page = Page(text)
    assert "<h1>Training: perplexity 42.0000" in text and 'class="bar"' not in text
    assert [line[0] for line in page.tables["On the test rows"]] == [
        "", "perplexity", "parameters", "on disk, MB"]  # fmt: skip
    assert page.files.keys() == {"On the test rows", "How it was made"}


def test_a_report_that_is_older_than_a_figure_has_a_page(run):
    content = json.loads((run / "report.json").read_text())
    for name in ("origin", "curves", "weights", "monitor", "mode", "control"):
        del content[name]
    for role in ("student", "teacher", "baseline"):
        keys = ("name", "parameters", "size_mb", "latency_ms", "metrics", "agreement", "parts")
        content[role] = {key: content[role][key] for key in keys}
    (run / "report.json").write_text(json.dumps(content))
    page = Page(write_page(run).read_text())
    assert page.lines("On the test rows")["latency of one row, median, ms"] == [
        ["3.25", "1.19", "1.13"]]  # fmt: skip
    assert page.files["Curves of every term and metric, by step"] == ["metrics.csv"]


def test_samples_are_shown_as_they_were_written(run):
    content = json.loads((run / "report.json").read_text())
    sample = {"prompt": "def f(", "text": "def f(x): ...", "continuations": {"teacher": "x < y"}}
    (run / "report.json").write_text(json.dumps({**content, "samples": [sample]}))
    page = Page(write_page(run).read_text())
    assert {"def f(", "def f(x): ...", "x < y"} <= set(page.texts)


def test_rows_that_differ_are_shown_with_their_texts(run):
    (run / "row_texts.json").write_text(json.dumps({"5": "a <i>film</i>"}))
    page = Page(write_page(run).read_text())
    title = "Where teacher and student differ most"
    assert page.files[title] == [PREDICTIONS, "row_texts.json"]
    lines = page.lines(title)
    # Row 5 is "odd"; the teacher has it right, and the student says the next class.
    assert lines["5"] == [["odd", "odd", "0.800", "bad", "0.900"]]
    assert set(lines) == {"row", "4", "5", "6", "7", "8", "9", "a <i>film</i>"}
    firsts = [line[0] for line in page.tables[title]]
    assert firsts[firsts.index("5") + 1] == "a <i>film</i>"


def test_the_similarity_of_layers_is_a_table_with_frames(run):
    found = {"hint": {"students": ["student.hidden_states[2]"], "cka": [[0.25, 0.875]],
                      "teachers": ["teacher.hidden_states[1]", "teacher.hidden_states[12]"],
                      "pairs": [[0, 1]]}}  # fmt: skip
    (run / "stages").mkdir()
    (run / "stages" / "layer_similarity.json").write_text(json.dumps(found))
    text = write_page(run).read_text()
    page = Page(text)
    heads, line = page.tables["Similarity of layers"]
    # What all of them begin with is left out.
    assert heads == ["", "1", "12"]
    assert line == ["student.hidden_states[2]", "0.25", "0.88"]
    assert "teacher.hidden_states[1] to teacher.hidden_states[12]" in page.text
    assert page.files["Similarity of layers"] == ["stages/layer_similarity.json"]
    assert re.findall(r'<td class="pair"[^>]*>([\d.]+)<', text) == ["0.88"]


def test_layers_after_the_training_are_said_to_be_so(run):
    layers = {"students": ["student.hidden_states[0]"], "teachers": ["teacher.hidden_states[0]"]}
    found = {**layers, "cka": [[0.5]], "pairs": [], "after_training": True}
    content = json.dumps({"trained hidden_states": found})
    (run / "layer_similarity.json").write_text(content)
    page = Page(write_page(run).read_text())
    assert "After the training, on some test rows: a line for each of" in page.text
    assert "framed" not in page.text


def test_a_run_that_is_older_than_intervals_is_shown_without(run):
    content = json.loads((run / "report.json").read_text())
    for role in ("teacher", "baseline", "student"):
        del content[role]["intervals"]
    (run / "report.json").write_text(json.dumps(content))
    page = Page(write_page(run).read_text())
    assert "its 95 % interval" not in page.lines("On the test rows")
    assert "No interval is known of accuracy, brier" in page.text


def test_where_the_time_of_a_step_went_is_a_table(run):
    seconds = dict.fromkeys(PHASES, 0.125)
    times = StepTimes(seconds, 10, 5, 15, 0.4, 80, {}, {}, "cpu", 1)
    Profile(times, cores=2).save(run)
    page = Page(write_page(run).read_text())
    heads, *lines = page.tables["Where the time of a step went"]
    assert heads == ["part", "", "ms a step", "share"]
    assert lines == [[part, what, "12.50", "12.5%"] for part, what in PHASES.items()]
    assert "100.0 ms a step, 80 samples/s" in page.text
    assert page.files["Where the time of a step went"] == ["profile.json"]
