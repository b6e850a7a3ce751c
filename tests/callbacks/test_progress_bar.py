"""The bar stays on one line, and tells the time left of the whole training."""

import io
import re

import pytest
import rich
from rich.progress import Progress
from tiny import bert, loader, text_batches, trainer
from torchmetrics.classification import MulticlassAccuracy

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.callbacks import ProgressBar
from lightning_distill.criteria import HardLabel


def shown(tmp_path, monkeypatch, width):
    """What is written on a terminal so many columns wide, by frame."""
    to = io.StringIO()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(rich, "_console", None)
    inputs = {"student": "student.logits", "labels": "batch.labels"}
    module = DistillationModule(
        bert(1, 8),
        None,
        Objective({"hard_label": Term(HardLabel(), inputs)}),
        {"accuracy": MulticlassAccuracy(3), "accuracy_of_a_very_long_name": MulticlassAccuracy(3)},
    )
    terminal = {"file": to, "force_terminal": True, "width": width, "color_system": None}
    bar = ProgressBar(refresh_rate=1, leave=False, console_kwargs=terminal)
    fit = trainer(tmp_path, max_epochs=2, callbacks=[bar], enable_progress_bar=True)
    fit.fit(module, loader(text_batches()), loader(text_batches()))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", to.getvalue())
    return [line.rstrip() for part in text.split("\r") for line in part.split("\n") if line.strip()]


@pytest.mark.parametrize("width", [80, 140])
def test_it_is_one_line_that_fits(tmp_path, monkeypatch, width):
    lines = shown(tmp_path, monkeypatch, width)
    assert any(line.startswith("Epoch 2 of 2") for line in lines)
    # A line that was broken would begin with the rest of the one above.
    for line in lines:
        assert re.match(r"Epoch \d of 2|Validation|Sanity Checking|Testing", line), line
        assert len(line) <= width
    last = [line for line in lines if line.startswith("Epoch 2 of 2")][-1]
    assert re.search(r"4/4 0:00:0\d left loss: \d", last), last
    assert ("accuracy: 0." in last) and ("very_long_name" in last) is (width == 140)


def test_the_time_left_is_that_of_all_epochs(tmp_path, monkeypatch):
    class Trainer:
        global_step, estimated_stepping_batches = 10, 100

    bar = ProgressBar()
    bar._trainer = Trainer()
    bar._begun, bar._steps = (0.0, 4), 100
    monkeypatch.setattr("time.monotonic", lambda: 12.0)
    progress = Progress()
    for _ in range(2):
        progress.add_task("")
    training, validation = progress.tasks
    bar.train_progress_bar_id = training.id
    # Six steps took 12 seconds, and 90 are left.
    assert bar.seconds_left(training) == 180
    assert bar.seconds_left(validation) == validation.time_remaining
    bar._steps = float("inf")
    assert bar.seconds_left(training) is None
