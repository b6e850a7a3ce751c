"""`metrics.csv` stays whole however often its run is killed."""

import csv

import pytest

from lightning_distill.callbacks import CSVLogger


def rows(path):
    with (path / "metrics.csv").open(newline="") as file:
        return [{n: v for n, v in row.items() if v} for row in csv.DictReader(file)]


def log(path, *steps, **more):
    logger = CSVLogger(path)
    for step in steps:
        logger.log_metrics({"train/loss": float(step), "epoch": step // 4, **more}, step=step)
    return logger


def test_rows_of_steps_that_are_taken_again_are_not_there_twice(tmp_path):
    log(tmp_path, 0, 1, 2, 3, 4, 5)
    log(tmp_path, 4, 5)
    log(tmp_path, 5, 6)
    assert [row["step"] for row in rows(tmp_path)] == list("0123456")
    log(tmp_path / "whole", 0, 1, 2, 3, 4, 5, 6)
    texts = [(folder / "metrics.csv").read_text() for folder in (tmp_path, tmp_path / "whole")]
    assert texts[0] == texts[1]


def test_a_new_column_comes_to_all_rows(tmp_path):
    logger = log(tmp_path, 0, 1)
    logger.log_metrics({"val/loss": 0.5, "epoch": 0}, step=1)
    logger.log_metrics({"train/loss": 2.0, "epoch": 0}, step=2)
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header == "epoch,step,train/loss,val/loss"
    assert rows(tmp_path)[2] == {"epoch": "0", "step": "1", "val/loss": "0.5"}
    assert len(rows(tmp_path)) == 4


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_row_that_was_not_written_to_its_end_is_dropped(tmp_path, cut):
    log(tmp_path, 0, 1, 2)
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text()[:-cut])
    log(tmp_path, 3)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "3"]


def test_a_run_with_more_epochs_is_tested_anew(tmp_path):
    log(tmp_path, 0, 1).log_metrics({"test/loss": 1.0, "epoch": 1}, step=2)
    log(tmp_path, 3, 4)
    assert [row["step"] for row in rows(tmp_path)] == list("0134")


def test_the_file_is_never_without_its_rows(tmp_path, monkeypatch):
    log(tmp_path, 0, 1)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_distill.callbacks.csv_logger.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        log(tmp_path, 2, more=1.0)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1"]
