"""logger=[csv,mlflow] writes what csv does, into a file of the run."""

import csv
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_distill.run.targets import instantiate

CONF = Path(__file__).parents[2] / "conf" / "logger"


def test_curves_are_in_a_file_of_the_run(tmp_path):
    # No package of the tests: its server and clients of clouds are large.
    mlflow = pytest.importorskip("mlflow")
    loggers = {}
    for name in ("csv", "mlflow"):
        cfg = OmegaConf.load(CONF / f"{name}.yaml")
        loggers[name] = instantiate(OmegaConf.merge({"output_dir": str(tmp_path)}, cfg)[name])
    for step in (0, 1):
        for logger in loggers.values():
            logger.log_metrics({"train/loss": 2.0 - step, "val/accuracy": 0.25 * step}, step)
    for logger in loggers.values():
        logger.finalize("success")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("lightning_distill").experiment_id])
    assert run.info.run_name == str(tmp_path) and run.info.status == "FINISHED"
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("train/loss", "val/accuracy"):
        found = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        assert found == [(int(row["step"]), float(row[name])) for row in rows]
