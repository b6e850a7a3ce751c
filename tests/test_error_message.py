"""The command speaks before anything else can fail, on any terminal."""

import errno
import io
import os
import sys

import pytest

from lightning_distill.error_message import message_of, message_of_hydra, report


def raised(error):
    try:
        raise error
    except type(error) as found:
        return found


def test_the_message_comes_first_and_the_traceback_of_the_first_process_stays(tmp_path, capsys):
    report(raised(ValueError("the cause")), tmp_path / "run")
    report(raised(RuntimeError("Connection closed by peer")), tmp_path / "run")
    said = capsys.readouterr().err
    assert said.startswith("lightning-distill: error: the cause\n")
    assert "RuntimeError: Connection closed by peer" in said
    kept = (tmp_path / "run" / "error.txt").read_text()
    assert kept.index("ValueError: the cause") < kept.index("Connection closed by peer")


def test_a_folder_that_cannot_be_made_does_not_hide_the_message(tmp_path, capsys):
    (tmp_path / "file").touch()
    report(raised(ValueError("the cause")), tmp_path / "file" / "run")
    said = capsys.readouterr().err
    assert "error: the cause" in said and "HYDRA_FULL_ERROR=1 prints" in said
    assert "Traceback" not in said


def test_a_terminal_that_knows_few_letters_shows_what_it_can(tmp_path, monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(shown, encoding="ascii"))
    report(raised(ValueError("the label größe • is new")), tmp_path)
    sys.stderr.flush()
    assert rb"the label gr\xf6\xdfe \u2022 is new" in shown.getvalue()
    assert "größe •" in (tmp_path / "error.txt").read_text(encoding="utf-8")


def test_a_terminal_that_is_gone_ends_nothing(tmp_path, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    report(raised(ValueError("x")), tmp_path)
    assert (tmp_path / "error.txt").is_file()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("say", [message_of, message_of_hydra])
def test_a_place_that_cannot_be_written_is_named_and_so_is_another(number, say):
    said = say(OSError(number, os.strerror(number), "runs/a"))
    assert said.startswith(f"runs/a could not be written ({os.strerror(number)}). Another folder")
    assert "hydra.run.dir=DIR" in said and "Errno" not in said
    said = say(OSError(number, "last.ckpt could not be written (full). Make room"))
    assert said.startswith("last.ckpt could not be written (full). Make room. Another folder")


def test_other_errors_of_the_system_keep_their_kind():
    assert message_of(ConnectionError("lost")) == "ConnectionError: lost"
    assert message_of(ValueError("plain")) == "plain"


def test_a_torchvision_that_does_not_fit_is_said_with_what_to_do():
    said = message_of(raised(RuntimeError("operator torchvision::nms does not exist")))
    assert said.startswith("torchvision was built for another torch than")
    assert "operator torchvision::nms does not exist" in said and "or remove it" in said
    ours = "timm cannot be imported: operator torchvision::nms does not exist"
    assert message_of(raised(ValueError(ours))) == ours


def test_optuna_as_a_sweeper_is_told_where_it_is(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "-m", "hparams_search=optuna"])
    said = message_of_hydra(ValueError("Could not find 'hparams_search/optuna'"))
    assert "Optuna is a job here, without -m. Type lightning-distill job=search" in said
    said = message_of_hydra(ValueError("Could not find 'hparams_search/gird'"))
    assert "Nearest: grid" in said
