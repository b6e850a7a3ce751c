"""WikiText-2: what a teacher adds to a small masked language model, over several seeds.

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/masked_language_modelling/run.py

FOLDER holds `wikitext2/valid.txt` and `wikitext2/test.txt`. A teacher of two layers is trained once
from scratch on the first. Students are one of its layers and see the first third of that text.
Alone they learn from the masked tokens, distilled also from the teacher's logits on them. Of the
second file the first eighth chooses the best checkpoint and the second is measured, unless
`--test-share` says otherwise. Every command is `lightning-distill`, and both students take the same
number of steps under the same masks.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scipy.stats import ttest_rel

HERE = Path(__file__).parent
HEAD = "cls.predictions.decoder"
TEACHER = {
    "model_type": "bert",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 256,
    "max_position_embeddings": 32,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--teacher-epochs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="of a student")
    parser.add_argument("--test-share", type=float, default=0.125, help="of the test file")
    parser.add_argument("--keep", help="folder for the runs; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = compare(options, Path(options.keep or scratch).absolute())
    (HERE / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found)


def compare(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Perplexity of masked test tokens of teacher and students, one value for each seed."""
    data, teacher = prepare(folder, options.test_share), folder / "teacher"
    if not (teacher / "report.json").is_file():
        start = time.perf_counter()
        model = ["student=from_config", *(f"student.{k}={v}" for k, v in TEACHER.items())]
        epochs = f"trainer.max_epochs={options.teacher_epochs}"
        train = f"data.train={folder / 'train.txt'}"
        where = f"hydra.run.dir={teacher}"
        run(*data, train, "job=finetune", *model, "optimizer.lr=3e-3", epochs, where)
        print(f"teacher: {time.perf_counter() - start:.0f} s", flush=True)
    heads = [
        f"criteria.fused_linear_divergence.inputs.{role}{end}={role}.{kind}:{HEAD}"
        for role in ("student", "teacher")
        for end, kind in (("", "layer_input"), ("_head", "head"))
    ]
    terms = ["criteria=[fused_linear_divergence]", *heads]
    terms += ["criteria.fused_linear_divergence.criterion.label_weight=1.0"]
    models = ["teacher=pretrained", f"teacher.path={teacher}/student", "student=from_teacher"]
    budget = [f"trainer.max_epochs={options.epochs}", "optimizer.lr=2e-3", "student.layers=1"]
    train, seeds = f"data.train={folder / 'part.txt'}", ",".join(map(str, range(options.seeds)))
    where = [f"hydra.sweep.dir={folder / 'students'}", "hydra.sweep.subdir=seed${seed}"]
    start = time.perf_counter()
    # One process for all of them.
    run("-m", *data, train, *models, *terms, *budget, f"seed={seeds}", *where)
    print(f"students: {time.perf_counter() - start:.0f} s", flush=True)
    found: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        path = folder / "students" / f"seed{seed}" / "report.json"
        report = json.loads(path.read_text(encoding="utf-8"))
        for name in ("teacher", "baseline", "student"):
            found.setdefault(name, []).append(report[name]["metrics"]["perplexity"])
    return found


def prepare(folder: Path, share: float) -> list[str]:
    """Cut the files, and return the options that all runs have."""
    source = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")) / "wikitext2"
    if not (source / "valid.txt").is_file():
        sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds wikitext2/valid.txt.")
    folder.mkdir(parents=True, exist_ok=True)
    lines = {n: (source / f"{n}.txt").read_text(encoding="utf-8") for n in ("valid", "test")}
    train, test = (text.splitlines(keepends=True) for text in lines.values())
    eighth, last = len(test) // 8, len(test) // 8 + int(len(test) * share)
    parts = {"train": train, "part": train[: len(train) // 3], "dev": test[:eighth]}
    for name, part in {**parts, "test": test[eighth:last]}.items():
        (folder / f"{name}.txt").write_text("".join(part), encoding="utf-8")
    return [
        "data=masked_corpus",
        f"data.validation={folder / 'dev.txt'}",
        f"data.test={folder / 'test.txt'}",
        "data.document=line",
        "data.vocab_size=2000",
        "data.max_length=32",
        "trainer.accelerator=cpu",
    ]


def run(*overrides: str) -> None:
    command = [sys.executable, "-m", "lightning_distill.main", *overrides]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])


def show(found: dict[str, list[float]]) -> None:
    titles = {"teacher": "teacher", "baseline": "student alone", "student": "student distilled"}
    print("| | perplexity of masked tokens | seeds |\n|---|---|---|")
    for name, values in found.items():
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        seeds = " ".join(f"{value:.2f}" for value in values)
        print(f"| {titles[name]} | {statistics.mean(values):.2f}{spread} | {seeds} |")
    if len(found["student"]) > 1:
        pairs = [a - b for a, b in zip(found["student"], found["baseline"], strict=True)]
        p = ttest_rel(found["student"], found["baseline"]).pvalue
        spread = statistics.stdev(pairs)
        print(f"paired difference {statistics.mean(pairs):.2f} ± {spread:.2f}, p = {p:.2g}")


if __name__ == "__main__":
    main()
