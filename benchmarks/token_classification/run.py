"""SNIPS slots: what a teacher adds to a tagger with few labels, over several seeds.

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/token_classification/run.py --teacher DIR

FOLDER holds `snips/{train,valid,test}` with `seq.in` (words) and `seq.out` (tags). DIR is a
pretrained encoder. It is fine-tuned once on `--rows` tagged sentences and teaches students made of
two of its layers. A student sees the same sentences, `--labelled` of which keep their tags. Alone
it learns from these; distilled it also learns from the teacher's logits on all words. Every
command is `lightning-distill`, and both students take the same number of steps.

With `--intents` each sentence has its intent too (the file `label`), and each model two heads: it
tags the words and tells the intent, as JointBERT does (Chen, Zhuo and Wang, 2019,
https://arxiv.org/abs/1902.10909).
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
PARALLEL = ("seq.in", "seq.out")
INTENTS = "label"
MEASURES = {"entity_f1": "entity F1", "row_accuracy": "intent accuracy"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", required=True, help="folder of a pretrained encoder")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=2000, help="sentences of the training data")
    parser.add_argument("--labelled", type=int, default=100, help="of these with tags")
    parser.add_argument("--epochs", type=int, default=5, help="of a student")
    parser.add_argument("--intents", action="store_true", help="intents too, by a second head")
    parser.add_argument("--keep", help="folder for the runs; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = compare(options, Path(options.keep or scratch))
    name = "results_intents.json" if options.intents else "results.json"
    kept = found if options.intents else found["entity_f1"]
    (HERE / name).write_text(json.dumps(kept, indent=2) + "\n")
    for measure, values in found.items():
        show(MEASURES[measure], values)


def compare(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, list[float]]]:
    """By measure, values in % of teacher and students, one for each seed."""
    measures = list(MEASURES)[: 1 + options.intents]
    data = prepare(folder, options.rows, options.intents)
    teacher = folder / "teacher"
    if not (teacher / "report.json").is_file():
        start = time.perf_counter()
        path = f"student.path={Path(options.teacher).absolute()}"
        tune = ["job=finetune", "student=pretrained", path, "optimizer.lr=2e-4"]
        run(teacher, *data, *tune, "trainer.max_epochs=4")
        print(f"teacher: {time.perf_counter() - start:.0f} s", flush=True)
    found: dict[str, dict[str, list[float]]] = {measure: {} for measure in measures}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        start = time.perf_counter()
        models = ["teacher=pretrained", f"teacher.path={teacher}/student", "student=from_teacher"]
        budget = [f"data.labelled_rows={options.labelled}", f"trainer.max_epochs={options.epochs}"]
        rates = ["student.layers=2", "optimizer.lr=3e-4"]
        report = run(folder / f"seed{seed}", *data, *models, *budget, *rates, f"seed={seed}")
        for measure, own in found.items():
            for name in ("teacher", "baseline", "student"):
                own.setdefault(name, []).append(100 * report[name]["metrics"][measure])
            values = ", ".join(f"{name} {of_seeds[-1]:.2f}" for name, of_seeds in own.items())
            seconds = time.perf_counter() - start
            print(f"seed {seed}: {MEASURES[measure]}: {values} ({seconds:.0f} s)", flush=True)
    return found


def prepare(folder: Path, rows: int, intents: bool = False) -> list[str]:
    """Write the first training sentences, and return the options that name all files."""
    files = (*PARALLEL, INTENTS) if intents else PARALLEL
    source = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")) / "snips"
    if not (source / "train" / PARALLEL[0]).is_file():
        sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds snips/train/seq.in.")
    train = folder / "train"
    train.mkdir(parents=True, exist_ok=True)
    for name in files:
        lines = (source / "train" / name).read_text().splitlines()[:rows]
        (train / name).write_text("\n".join(lines) + "\n")
    splits = [source / split / PARALLEL[1] for split in ("train", "valid", "test")]
    # All of them, for the first sentences may lack a rare one.
    tags = sorted({tag for path in splits for tag in path.read_text().split()})
    return [
        "data=token_files",
        f"data.train={train.absolute()}",
        f"data.validation={(source / 'valid').absolute()}",
        f"data.test={(source / 'test').absolute()}",
        f"data.label_names=[{','.join(tags)}]",
        f"data.parallel=[{','.join(files)}]",
        "trainer.accelerator=cpu",
    ]


def run(folder: Path, *overrides: str) -> dict:
    command = [sys.executable, "-m", "lightning_distill.main", *overrides]
    done = subprocess.run([*command, f"hydra.run.dir={folder}"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads((folder / "report.json").read_text())


def show(measure: str, found: dict[str, list[float]]) -> None:
    titles = {"teacher": "teacher", "baseline": "student alone", "student": "student distilled"}
    print(f"| | {measure} | seeds |\n|---|---|---|")
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
