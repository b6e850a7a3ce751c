"""A kept teacher is found again only for a run that would train the same."""

import importlib
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_module

from lightning_distill.run.trainer import process_count

# The package hands on the function of the same name.
made = importlib.import_module("lightning_distill.run.trained_teacher")
CPU = ["trainer.accelerator=cpu"]


def configured(*overrides):
    with initialize_config_module("lightning_distill.conf", version_base="1.3"):
        return compose("main", [*CPU, *overrides, "output_dir=runs"])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], 1),
        (["trainer=ddp", "trainer.devices=1"], 1),
        (["trainer=ddp", "trainer.devices=4"], 4),
        (["trainer.devices=2"], 2),
        (["trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2"], 2),
        (["trainer=ddp", "trainer.devices=2", "trainer.num_nodes=3"], 6),
    ],
)
def test_processes_are_counted_as_lightning_counts_them(overrides, expected):
    assert process_count(configured(*overrides)) == expected


def recipe(monkeypatch, tmp_path, *overrides, batch_size=32):
    """What a teacher is kept under, without training one."""
    cfg = configured(
        "task=classification", "num_labels=2", "monitor=val/accuracy", "mode=max", *overrides
    )
    data = SimpleNamespace(fingerprint=lambda: "data", replace=lambda **changes: data)
    found = {}

    def stop(kept):
        found["key"] = kept.name
        raise KeyboardInterrupt

    monkeypatch.setattr(made, "_check_writable", stop)
    with pytest.raises(KeyboardInterrupt):
        made.trained_teacher(
            cfg, data, {"_target_": "x"}, batch_size=batch_size, folder=str(tmp_path)
        )
    return found["key"]


@pytest.mark.parametrize("other", ["metrics.agreement=null", "metrics=[accuracy]"])
def test_what_compares_with_a_teacher_makes_no_other(monkeypatch, tmp_path, other):
    assert recipe(monkeypatch, tmp_path, other) == recipe(monkeypatch, tmp_path)
    assert recipe(monkeypatch, tmp_path, "metrics=[accuracy,f1]") != recipe(monkeypatch, tmp_path)


def test_the_rows_of_a_step_make_another_teacher(monkeypatch, tmp_path):
    def key(*overrides, **options):
        return recipe(monkeypatch, tmp_path, *overrides, **options)

    one = key()
    four = key("trainer=ddp", "trainer.devices=4")
    nodes = key("trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2")
    accumulated = key("trainer.accumulate_grad_batches=4")
    assert len({one, four, nodes, accumulated}) == 4
    # The same rows in each step.
    assert four == key(batch_size=128) and nodes == key(batch_size=64)
    assert one == key("trainer=ddp", "trainer.devices=1") == key("trainer.devices=1")


def test_a_teacher_that_cannot_be_kept_is_refused_before_it_is_trained(tmp_path):
    cfg = configured("task=classification", "num_labels=2", "monitor=val/accuracy", "mode=max")
    data = SimpleNamespace(fingerprint=lambda: "data", replace=lambda **changes: data)
    model = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2}
    with pytest.raises(ValueError, match="a Linear has no method `save_pretrained`. Take a model"):
        made.trained_teacher(cfg, data, model, folder=str(tmp_path))
    assert not list(tmp_path.glob("*/recipe.json"))
