"""What is said to run offline does so on this Python, whatever sources it has."""

import pytest
from hydra import compose, initialize_config_module

import lightning_distill.main  # noqa: F401  registers the resolvers
from lightning_distill.run.data import build_data

# Their rows come from the standard library or from scikit-learn, and differ between installations.
OFFLINE = ["digits", "embeddings", "lm_stdlib", "mlm", "question_answering", "seq2seq"]
OFFLINE += ["token_classification", "quantised"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", OFFLINE)
def test_its_rows_are_read_with_the_settings_that_it_comes_with(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path))
    with initialize_config_module("lightning_distill.conf", version_base="1.3"):
        cfg = compose("main", [f"experiment={name}", f"output_dir={tmp_path}"])
    data = build_data(cfg)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert next(iter(loader)) is not None
    assert cfg.num_rows >= 100
