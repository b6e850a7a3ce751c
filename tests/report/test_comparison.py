import json

import pytest

from lightning_distill.report import Comparison, Row


def row(name: str, value: float, agreement: float | None = None, metric: str = "accuracy") -> Row:
    return Row(name, 1234567, 4.94, 1.5, {metric: value}, agreement)


def compared(student: float, teacher=0.9, baseline=0.7, **options) -> Comparison:
    higher = options.pop("higher_is_better", True)
    return Comparison(
        metric="accuracy",
        higher_is_better=higher,
        student=row("student distilled", student, 0.95),
        teacher=None if teacher is None else row("teacher", teacher),
        baseline=None if baseline is None else row("student alone", baseline, 0.75),
        **options,
    )


@pytest.mark.parametrize(
    ("student", "teacher", "baseline", "higher", "share"),
    [
        (0.85, 0.9, 0.7, True, 0.75),
        (0.6, 0.9, 0.7, True, -0.5),
        (0.95, 0.9, 0.7, True, 1.25),
        (0.2, 0.1, 0.5, False, 0.75),
        (0.8, 0.7, 0.7, True, None),
        (0.8, 0.6, 0.7, True, None),
        (0.8, None, 0.7, True, None),
        (0.8, 0.9, None, True, None),
    ],
)
def test_the_share_of_the_gap_that_is_closed(student, teacher, baseline, higher, share):
    found = compared(student, teacher, baseline, higher_is_better=higher).gap_closed
    assert found == (share if share is None else pytest.approx(share))


@pytest.mark.parametrize(
    ("student", "limit", "relative", "higher", "words"),
    [
        (0.89, 0.02, True, True, "is within max_metric_drop: it drops 1.1% (of the teacher's"),
        (0.89, 0.01, True, True, "is NOT within max_metric_drop: it drops 1.1%"),
        (0.89, 0.0101, False, True, "is within max_metric_drop: it drops 0.0100 (absolute"),
        (0.89, 0.005, False, True, "is NOT within max_metric_drop: it drops 0.0100"),
        (0.95, 0.0, True, True, "is within max_metric_drop: it drops -5.6%"),
        # A loss: more is worse.
        (0.99, 0.05, True, False, "is NOT within max_metric_drop: it drops 10.0%"),
        (0.89, 0.05, True, False, "is within max_metric_drop: it drops -1.1%"),
    ],
)
def test_the_report_says_whether_the_drop_is_allowed(student, limit, relative, higher, words):
    made = compared(student, max_drop=limit, relative=relative, higher_is_better=higher)
    assert words in " ".join(made.verdict())


def test_nothing_is_said_of_a_drop_that_nobody_limited():
    assert "max_metric_drop" not in " ".join(compared(0.8).verdict())
    assert "max_metric_drop" not in " ".join(compared(0.8, teacher=None, max_drop=0.1).verdict())


@pytest.mark.parametrize(
    ("student", "teacher", "words"),
    [
        (0.8, 0.9, "The teacher's help is worth 0.1000 accuracy in this run. It closes 50%"),
        (0.6, 0.9, "Distillation did not help in this run: accuracy is 0.1000 worse"),
        (0.6, 0.9, "than that of the student alone. That is 50% of the gap to the teacher."),
        (0.7, 0.9, "Distillation made no difference to accuracy"),
        (0.8, 0.6, "no gap to close"),
    ],
)
def test_the_report_says_what_came_out(student, teacher, words):
    assert words in " ".join(compared(student, teacher).verdict())


def test_the_share_of_the_teacher_that_a_student_has():
    made = compared(0.81, teacher=0.9, baseline=0.45)
    assert made.retained(made.student) == pytest.approx(0.9)
    assert made.retained(made.baseline) == pytest.approx(0.5)
    assert made.retained(made.teacher) is None
    # Of what shall be small, or of a teacher below 0, a share says nothing.
    assert compared(0.8, higher_is_better=False).retained(made.student) is None
    assert compared(0.8, teacher=-0.1).retained(made.student) is None
    assert compared(0.8, teacher=None).retained(made.student) is None


def test_what_is_written_is_what_is_shown(tmp_path, capsys):
    made = compared(0.85, max_drop=0.01, facts={"seed": "3", "test rows": "892"})
    made.show()
    made.save(tmp_path)
    shown, written = capsys.readouterr().out, (tmp_path / "report.md").read_text()
    for words in ("student distilled", "1,234,567", "0.8500", "0.7000", "0.9500", "75%"):
        assert words in shown, words
        assert words in written, words
    for sentence in made.verdict():
        assert sentence in written
        assert sentence in " ".join(shown.split())
    assert "On 892 test rows" in shown
    assert "- seed: 3" in written
    tables = [block.splitlines() for block in written.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert len({line.count("|") for line in table}) == 1, "a broken table"
    assert "| latency of one row, median, ms | 1.50 | 1.50 | 1.50 |" in tables[1]
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["gap_closed"] == pytest.approx(0.75)
    assert found["teacher"]["metrics"]["accuracy"] == 0.9


def test_the_table_fits_into_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    compared(0.85).show()
    shown = capsys.readouterr().out
    assert "parameters" in shown and "agreement" in shown
    assert "…" not in shown


@pytest.mark.parametrize("columns", [80, 200])
def test_metrics_that_do_not_fit_side_by_side_are_lines(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    made = compared(0.85, teacher=0.9)
    for i, each in enumerate((made.student, made.teacher, made.baseline)):
        more = {"bits_per_byte": 4.75 + i, "forward_kl": 0.15 + i}
        each.metrics = {**each.metrics, **more}
    del made.teacher.metrics["forward_kl"]
    made.show()
    shown = capsys.readouterr().out
    assert "…" not in shown
    lines = {line.split("  ")[0].strip(): line for line in shown.splitlines()}
    if columns == 200:
        assert lines["student distilled"].split()[-5:] == [
            "0.8500",
            "4.7500",
            "0.1500",
            "0.9500",
            "75%",
        ]
        return
    # The teacher stands first, and the student last.
    assert lines["bits_per_byte"].split()[1:] == ["5.7500", "6.7500", "4.7500"]
    assert lines["forward_kl"].split()[1:] == ["2.1500", "0.1500"]
    assert lines["parameters"].split()[1:] == ["1,234,567"] * 3
    assert lines["gap closed"].split() == ["gap", "closed", "75%"]


def test_a_teacher_is_not_measured_by_its_agreement_with_itself(tmp_path):
    found = compared(0.9)
    found.metric = "agreement"
    found.student, found.baseline = (row(n, 0.9, None, "agreement") for n in ("student", "alone"))
    assert found.teacher is not None and found.gap_closed is None and found.drop is None
    assert not any("teacher" in line for line in found.verdict() if "help" not in line)
    found.save(tmp_path)
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert any(line.startswith("| teacher | 1,234,567 |") for line in lines)


def test_intervals_of_the_metric_are_written_and_read_again(tmp_path):
    made = compared(0.8, baseline=None)
    made.save(tmp_path)
    assert made.interval_line() == "" and "intervals" not in (tmp_path / "report.md").read_text()
    made.student.intervals = {"accuracy": (0.75, 0.84999), "agreement": (0.5, 0.6)}
    made.save(tmp_path)
    line = "95 % intervals of accuracy over test rows: student distilled 0.7500–0.8500."
    assert line in (tmp_path / "report.md").read_text().splitlines()
    found = Comparison.load(tmp_path / "report.json")
    assert found.interval_line() == line
    assert found.student.intervals["agreement"] == [0.5, 0.6]
