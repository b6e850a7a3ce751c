"""Is the gain of the built-in task real? Five seeds of `lightning-distill`, and a control.

    python benchmarks/docstrings/run.py

Every seed draws labelled rows, tokenizer, teacher and student anew and runs the default command,
then the same with the teacher's answers shuffled over the rows of each batch. Prints a table with
mean, standard deviation and paired t-tests, and writes `results.json` beside this file.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from scipy.stats import ttest_rel

HERE = Path(__file__).parent
CONTROL = "criteria.soft_target.criterion._target_=shuffled.ShuffledSoftTarget"
REGULARISED = ["student.hidden_dropout_prob=0.3", "student.attention_probs_dropout_prob=0.3"]
ARMS = {
    "default": [],
    "control": [CONTROL, "allow_targets=[shuffled]", "baseline=false"],
    "all labels": ["criteria=[hard_label]", "data.labelled_rows=null"],
    "regularised": ["criteria=[hard_label]", "data.drop_unlabelled=true", "optimizer.lr=1e-3"],
}


def run(seed: int, overrides: list[str], scratch: str) -> dict:
    folder = Path(tempfile.mkdtemp(dir=scratch))
    command = [sys.executable, "-m", "lightning_distill.main", f"seed={seed}", *overrides]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run(
        [*command, f"hydra.run.dir={folder}"], check=True, env=environment, capture_output=True
    )
    return json.loads((folder / "report.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    found: dict[str, list[float]] = {}

    def add(name: str, row: dict) -> None:
        found.setdefault(name, []).append(100 * row["metrics"]["accuracy"])

    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            report = run(seed, ARMS["default"], scratch)
            add("teacher", report["teacher"])
            add("student alone", report["baseline"])
            add("student distilled", report["student"])
            add("control: shuffled teacher", run(seed, ARMS["control"], scratch)["student"])
            print(f"seed {seed}: " + ", ".join(f"{n} {v[-1]:.1f}" for n, v in found.items()))
            # As many steps as the others had, on labelled rows alone.
            epochs = ["trainer.max_epochs=118", "trainer.check_val_every_n_epoch=10"]
            more = ["+" + option for option in REGULARISED]
            alone = [*ARMS["regularised"], *more, epochs[0], "+" + epochs[1]]
            add("student alone, dropout 0.3, lr 1e-3", run(seed, alone, scratch)["student"])
            add("student on all labels", run(seed, ARMS["all labels"], scratch)["student"])
    (HERE / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found)


def show(found: dict[str, list[float]]) -> None:
    base = found["student alone"]
    print(f"{'test accuracy, %':38}{'mean':>7}{'sd':>6}{'gain':>8}{'p':>10}   seeds")
    for name, values in found.items():
        gain = statistics.mean(values) - statistics.mean(base)
        p = "" if values is base else f"{ttest_rel(values, base).pvalue:.1e}"
        listed = " ".join(f"{v:.1f}" for v in values)
        print(
            f"{name:38}{statistics.mean(values):7.1f}{statistics.stdev(values):6.1f}"
            f"{gain:+8.1f}{p:>10}   {listed}"
        )


if __name__ == "__main__":
    main()
