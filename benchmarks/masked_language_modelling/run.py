"""WikiText-2: what a teacher adds to a small masked language model, over several seeds.

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/masked_language_modelling/run.py

FOLDER holds `wikitext2/valid.txt`, on which all models are trained, and `wikitext2/test.txt`, the
first part of which chooses the best checkpoint and the rest of which is measured. A teacher of
three layers is trained once from scratch. Students are one of its layers: alone they learn from the
masked tokens, distilled also from the teacher's logits on them. Every command is
`lightning-distill`, and both students take the same number of steps under the same masks.
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
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 64,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--teacher-epochs", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=3, help="of a student")
    parser.add_argument("--keep", help="folder for the runs; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = compare(options, Path(options.keep or scratch).absolute())
    (HERE / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found)


def compare(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Perplexity of masked test tokens of teacher and students, one value for each seed."""
    data, teacher = prepare(folder), folder / "teacher"
    if not (teacher / "report.json").is_file():
        start = time.perf_counter()
        model = ["student=from_config", *(f"student.{k}={v}" for k, v in TEACHER.items())]
        epochs = f"trainer.max_epochs={options.teacher_epochs}"
        run(teacher, *data, "job=finetune", *model, "optimizer.lr=2e-3", epochs)
        print(f"teacher: {time.perf_counter() - start:.0f} s", flush=True)
    parts = ("student", "teacher")
    heads = [
        f"criteria.fused_linear_divergence.inputs.{role}{end}={role}.{kind}:{HEAD}"
        for role in parts
        for end, kind in (("", "layer_input"), ("_head", "head"))
    ]
    terms = ["criteria=[fused_linear_divergence]", *heads]
    terms += ["criteria.fused_linear_divergence.criterion.label_weight=1.0"]
    models = ["teacher=pretrained", f"teacher.path={teacher}/student", "student=from_teacher"]
    found: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        start = time.perf_counter()
        budget = [f"trainer.max_epochs={options.epochs}", "optimizer.lr=1e-3", "student.layers=1"]
        report = run(folder / f"seed{seed}", *data, *models, *terms, *budget, f"seed={seed}")
        for name in ("teacher", "baseline", "student"):
            found.setdefault(name, []).append(report[name]["metrics"]["perplexity"])
        values = ", ".join(f"{name} {of_seeds[-1]:.2f}" for name, of_seeds in found.items())
        print(f"seed {seed}: {values} ({time.perf_counter() - start:.0f} s)", flush=True)
    return found


def prepare(folder: Path) -> list[str]:
    """Cut the test file, and return the options that name all files."""
    source = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")) / "wikitext2"
    if not (source / "valid.txt").is_file():
        sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds wikitext2/valid.txt.")
    folder.mkdir(parents=True, exist_ok=True)
    lines = (source / "test.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    cut = len(lines) // 4
    (folder / "dev.txt").write_text("".join(lines[:cut]), encoding="utf-8")
    (folder / "test.txt").write_text("".join(lines[cut:]), encoding="utf-8")
    return [
        "data=masked_corpus",
        f"data.train={(source / 'valid.txt').absolute()}",
        f"data.validation={folder / 'dev.txt'}",
        f"data.test={folder / 'test.txt'}",
        "data.document=line",
        "data.vocab_size=4000",
        "data.max_length=64",
        "trainer.accelerator=cpu",
    ]


def run(folder: Path, *overrides: str) -> dict:
    command = [sys.executable, "-m", "lightning_distill.main", *overrides]
    done = subprocess.run([*command, f"hydra.run.dir={folder}"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads((folder / "report.json").read_text())


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
