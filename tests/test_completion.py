"""The Tab key completes groups, their choices, keys and settings."""

import sys

import pytest

from lightning_distill.main import main


def completed(typed, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", f"lightning-distill {typed}")
    monkeypatch.setenv("COMP_POINT", str(len(f"lightning-distill {typed}")))
    monkeypatch.setattr(sys, "argv", ["lightning-distill", "-sc", "query=bash"])
    main()
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("job=fi", ["job=finetune"]),
        ("logger=", [f"logger={name}" for name in ("csv", "mlflow", "tensorboard", "wandb")]),
        ("previ", ["preview="]),
        ("trainer.max_e", ["trainer.max_epochs="]),
        ("job=distill debu", ["debug="]),
    ],
)
def test_what_follows_is_completed(typed, expected, monkeypatch, capsys):
    assert completed(typed, monkeypatch, capsys) == expected
