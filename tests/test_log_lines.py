"""Lines of the log while a progress bar is shown."""

import io
import logging
import re

from rich.console import Console
from rich.progress import Progress

from lightning_distill.log_lines import LogLines


def test_a_line_stands_above_a_progress_bar_and_not_in_it():
    to = io.StringIO()
    console = Console(file=to, force_terminal=True, width=60, color_system=None)
    log = logging.getLogger("test_log_lines")
    # Made before the bar is, as by Hydra.
    handler = LogLines()
    log.addHandler(handler)
    # A command that another test has run leaves a handler of its own with the root.
    log.propagate = False
    try:
        with Progress(console=console, auto_refresh=False) as progress:
            task = progress.add_task("Epoch 1", total=4)
            progress.update(task, advance=1, refresh=True)
            log.warning("The loss is large.")
            progress.update(task, advance=1, refresh=True)
    finally:
        log.removeHandler(handler)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", to.getvalue()).replace("\r", "\n").split("\n")
    assert [line for line in lines if "loss" in line] == ["The loss is large."]


def test_without_a_bar_it_is_standard_output(capsys):
    handler = LogLines()
    handler.emit(logging.LogRecord("n", logging.INFO, "f", 1, "Trained", (), None))
    assert capsys.readouterr().out == "Trained\n"
