"""SST-2: a teacher fine-tuned on it, and students with and without, over three seeds.

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/sst2/run.py
    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/sst2/run.py --teacher DIR   # a pretrained one

FOLDER holds `sst2/train.tsv`, `dev.tsv` and `test.tsv` (text, label, no header). Without
--teacher the teacher is a small BERT from scratch; with it, a pretrained model in DIR, fine-tuned
for two epochs. Students: `alone` learns from labels, `logits` also from the teacher's logits, and
`layers` also from its hidden states. Every command is `lightning-distill`.
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
LAYERS = [
    "criteria=[hard_label,soft_target,hint]",
    "criteria.hint.inputs.student='student.hidden_states[*]'",
    "criteria.hint.inputs.teacher='teacher.hidden_states[*]'",
    "criteria.hint.criterion.kind=cosine",
]


def files() -> list[str]:
    folder = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")) / "sst2"
    if not (folder / "train.tsv").is_file():
        sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds sst2/train.tsv.")
    return ["experiment=sst2", f"data_dir={folder.absolute()}"]


def run(folder: Path, *overrides: str) -> dict:
    command = [sys.executable, "-m", "lightning_distill.main", *files(), *overrides]
    subprocess.run([*command, f"hydra.run.dir={folder}"], check=True, capture_output=True)
    return json.loads((folder / "report.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", help="folder of a pretrained model; fine-tuned first")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    found: dict[str, list[float]] = {}

    def add(name: str, row: dict) -> None:
        found.setdefault(name, []).append(100 * row["metrics"]["accuracy"])

    with tempfile.TemporaryDirectory() as scratch:
        tune = ["job=finetune", "trainer.max_epochs=2", "student=pretrained"]
        if options.teacher:
            path = f"student.path={Path(options.teacher).absolute()}"
            run(Path(scratch) / "teacher", *tune, path, "optimizer.lr=1e-4")
            teacher = ["teacher=pretrained", f"teacher.path={scratch}/teacher/student"]
            teacher += ["student=from_teacher", "student.layers=2", "optimizer.lr=2e-4"]
            teacher += [f"trainer.max_epochs={options.epochs or 3}"]
        else:
            teacher = ["teacher=trained", "student=from_config"]
            teacher += [f"trainer.max_epochs={options.epochs or 6}"]
        for seed in range(options.seeds):
            folder = Path(scratch) / str(seed)
            logits = run(folder / "logits", *teacher, f"seed={seed}")
            layers = run(folder / "layers", *teacher, f"seed={seed}", "baseline=false", *LAYERS)
            add("teacher", logits["teacher"])
            add("alone", logits["baseline"])
            add("logits", logits["student"])
            add("layers", layers["student"])
            print(f"seed {seed}: " + ", ".join(f"{n} {v[-1]:.2f}" for n, v in found.items()))
        sizes = {n: logits[n]["parameters"] for n in ("teacher", "student")}
    name = "pretrained" if options.teacher else "from_scratch"
    (HERE / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
    print(f"parameters: {sizes}")
    for name, values in found.items():
        p = ttest_rel(values, found["alone"]).pvalue if name in ("logits", "layers") else None
        print(
            f"{name:9}{statistics.mean(values):7.2f} ± {statistics.stdev(values):.2f}"
            + ("" if p is None else f"   against alone: p = {p:.3f}")
        )


if __name__ == "__main__":
    main()
