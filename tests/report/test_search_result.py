"""The files of a search say what its trials say."""

import csv
import json

import pytest

from lightning_distill.report import SearchResult, Tried

TRIALS = [
    Tried(
        0, "complete", {"student.layers": 2}, 0.8, 20, 0.2, 2.0, 3, 1.0, None, "trials/000", True
    ),
    Tried(
        1, "complete", {"student.layers": 1}, 0.6, 10, 0.1, 1.0, 3, 1.0, None, "trials/001", True
    ),
    Tried(
        2, "pruned", {"student.layers": 3}, 0.1, 30, 0.3, 3.0, 1, 1.0, "trial 0 was", "trials/002"
    ),
    Tried(4, "failed", {"student.layers": 9}, reason="not, so many", folder="trials/004"),
    Tried(
        5, "complete", {"student.layers": 4}, 0.8, 40, 0.4, 4.0, 3, 1.0, None, "trials/005", True
    ),
]


def result(higher_is_better=True, objectives=("metric", "size")):
    return SearchResult("accuracy", higher_is_better, objectives, TRIALS)


def test_the_best_come_by_their_metric_and_of_equal_ones_the_smaller_first():
    assert [trial.number for trial in result().front] == [0, 5, 1]
    assert [trial.number for trial in result(False).front] == [1, 0, 5]


def test_the_files_hold_every_trial(tmp_path):
    result().save(tmp_path)
    whole = json.loads((tmp_path / "search.json").read_text())
    assert [Tried(**trial) for trial in whole["trials"]] == TRIALS
    assert (whole["metric"], whole["best"]) == ("accuracy", [0, 5, 1])
    with (tmp_path / "search.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["number"]) for row in rows] == [0, 1, 2, 4, 5]
    assert [row["student.layers"] for row in rows] == ["2", "1", "3", "9", "4"]
    assert rows[3]["reason"] == "not, so many" and rows[3]["metric"] == ""


@pytest.mark.parametrize("objectives", [("metric",), ("metric", "latency", "size", "size_mb")])
def test_it_is_shown_and_drawn(tmp_path, capsys, monkeypatch, objectives):
    monkeypatch.setenv("COLUMNS", "80")
    result(objectives=objectives).show()
    said = capsys.readouterr().out
    words = " and ".join(["accuracy", *objectives[1:]])
    assert f"Not beaten in {words}, of 5 trials" in " ".join(said.split())
    lines = [line.split() for line in said.splitlines()]
    assert ["0", "2", "0.8000", "20", "0.20", "2.00"] in lines
    assert not any(line[:1] == ["2"] for line in lines)
    result(objectives=objectives).draw(tmp_path / "search.png")
    assert (tmp_path / "search.png").stat().st_size > 5000
