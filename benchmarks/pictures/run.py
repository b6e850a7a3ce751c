"""Digits: what a teacher adds to a classifier of pictures with few labels, over several seeds.

    python benchmarks/pictures/run.py --output benchmarks/pictures/results.json

A vision transformer is trained once on the labels of all training pictures and teaches smaller
ones, which see the same pictures, `--labelled` of which keep their label. Alone a student learns
from these; distilled it also learns from the teacher's logits on all pictures. Every command is
`lightning-distill`, and both students take the same number of steps.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from scipy.stats import ttest_rel

NAMES = {"teacher": "teacher", "baseline": "student alone", "student": "student distilled"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labelled", type=int, default=100, help="labels that students see")
    parser.add_argument("--epochs", type=int, default=10, help="of the students")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as scratch:
        teacher = Path(scratch) / "teacher"
        # The same model as teacher=trained_vit makes for the experiment.
        model = [
            *("student=vit", "student.hidden_size=96", "student.num_hidden_layers=4"),
            *("student.intermediate_size=192", "student.hidden_dropout_prob=0.1"),
            *("student.patch_size=2", "optimizer.lr=1e-3", "trainer.max_epochs=12"),
        ]
        run(teacher, "job=finetune", "data=digits", *model)
        for seed in range(options.seeds):
            report = run(
                Path(scratch) / f"seed{seed}",
                *("experiment=digits", "teacher=pretrained", f"teacher.path={teacher}/student"),
                *("~teacher.model", f"data.labelled_rows={options.labelled}"),
                *(f"trainer.max_epochs={options.epochs}", f"seed={seed}"),
            )
            for name, values in found.items():
                values.append(100 * report[name]["metrics"]["accuracy"])
            print(f"seed {seed}:", {name: round(v[-1], 2) for name, v in found.items()}, flush=True)
    show(found)
    if options.output:
        kept = {"labelled": options.labelled, "epochs": options.epochs, "accuracy": found}
        options.output.write_text(json.dumps(kept, indent=2) + "\n")


def run(folder: Path, *overrides: str) -> dict:
    command = [sys.executable, "-m", "lightning_distill.main", *overrides]
    command += ["trainer.accelerator=cpu", f"hydra.run.dir={folder}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads((folder / "report.json").read_text())


def show(found: dict[str, list[float]]) -> None:
    print("| | accuracy | seeds |\n|---|---|---|")
    for name, values in found.items():
        seeds = " ".join(f"{value:.1f}" for value in values)
        spread = statistics.stdev(values)
        print(f"| {NAMES[name]} | {statistics.mean(values):.2f} ± {spread:.2f} | {seeds} |")
    pairs = [a - b for a, b in zip(found["student"], found["baseline"], strict=True)]
    p = ttest_rel(found["student"], found["baseline"]).pvalue
    print(
        f"paired difference {statistics.mean(pairs):.2f} ± {statistics.stdev(pairs):.2f}, p={p:.2g}"
    )


if __name__ == "__main__":
    main()
