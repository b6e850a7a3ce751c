"""STS-B: what a teacher's vectors give to a model of sentences with half its layers, or a third.

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/embeddings/run.py --teacher DIR

FOLDER holds `stsb/sts-{train,dev,test}.csv`. DIR is a folder of sentence-transformers; the teacher
is the model as it is, and the vectors of all texts are kept once. Students are made of its layers
(`student=from_teacher`). Dropped, such a student is measured as it is cut. Alone it learns from the
`--labelled` pairs of the training data that keep their scores. Distilled it also learns from the
teacher's vectors of all texts. Both take the same number of steps. Every command is
`lightning-distill`.
"""

import argparse
import csv
import json
import os
import random
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

from scipy.stats import ttest_rel

from lightning_distill.main import main as main_of_command

HERE = Path(__file__).parent
# Test Spearman of stsb-roberta-base by how many of its 12 layers are kept and trained to give the
# vectors of all: sentence-transformers, examples/training/distillation.
PUBLISHED = {12: 85.44, 8: 85.54, 6: 85.23, 4: 84.92, 3: 84.39, 2: 83.32, 1: 80.86}
TITLES = {"dropped": "layers dropped", "alone": "student alone", "distilled": "student distilled"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", required=True, help="folder of a sentence-transformers model")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=600, help="of the training data")
    parser.add_argument("--tests", type=int, default=400, help="pairs of the test data")
    parser.add_argument("--labelled", type=int, default=100, help="of these with a score")
    parser.add_argument("--layers", type=int, nargs="+", default=[3, 2], help="of the students")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--keep", help="folder for the runs; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = compare(options, Path(options.keep or scratch).absolute())
    (HERE / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found)


def compare(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Test Spearman in % of students by how many layers they have, a value for each seed."""
    data = prepare(folder, options.pairs, options.tests)
    teacher = str(Path(options.teacher).absolute())
    live = ["teacher=pretrained", f"teacher.path={teacher}", "student=from_teacher"]
    if not (folder / "kept" / "manifest.json").is_file():
        run(folder / "cache", *data, *live, "job=cache", f"job.folder={folder}/kept")
    cached = ["teacher=cached", f"teacher.folder={folder}/kept", "student=from_teacher"]
    found: dict[str, dict[str, list[float]]] = {}
    for layers in options.layers:
        of_size = found.setdefault(str(layers), {name: [] for name in ("teacher", *TITLES)})
        of_size["dropped"].append(measured_as_cut(folder, data, cached, layers))
        for seed in range(options.seeds):
            start = time.perf_counter()
            budget = [f"student.layers={layers}", f"trainer.max_epochs={options.epochs}"]
            budget += [f"data.labelled_rows={options.labelled}", "optimizer.lr=1e-4"]
            where = folder / f"layers{layers}seed{seed}"
            report = run(where, *data, *cached, *budget, f"seed={seed}")
            for name, of in (("alone", "baseline"), ("distilled", "student")):
                of_size[name].append(100 * report[of]["metrics"]["spearman"])
            of_size["teacher"] = [100 * report["teacher"]["metrics"]["spearman"]]
            values = ", ".join(f"{name} {of[-1]:.2f}" for name, of in of_size.items())
            seconds = time.perf_counter() - start
            print(f"{layers} layers, seed {seed}: {values} ({seconds:.0f} s)", flush=True)
    return found


def measured_as_cut(folder: Path, data: list[str], cached: list[str], layers: int) -> float:
    """What a student reaches that no step has changed."""
    cut = folder / f"cut{layers}"
    still = [f"student.layers={layers}", "trainer.max_steps=1", "optimizer.lr=1e-12"]
    report = run(cut, *data, *cached, *still, "baseline=false", "scheduler=constant")
    return 100 * report["student"]["metrics"]["spearman"]


def prepare(folder: Path, pairs: int, tests: int) -> list[str]:
    """Write pairs as jsonl, and return the options that name all files."""
    source = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")) / "stsb"
    if not (source / "sts-train.csv").is_file():
        sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds stsb/sts-train.csv.")
    folder.mkdir(parents=True, exist_ok=True)
    # A part of the development rows chooses the best of each run.
    for split, count in (("train", pairs), ("dev", 100), ("test", tests)):
        with (source / f"sts-{split}.csv").open(encoding="utf-8", newline="") as lines:
            rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        random.Random(0).shuffle(rows)
        texts = [{"text": r[5], "text_pair": r[6], "score": float(r[4])} for r in rows[:count]]
        text = "".join(json.dumps(row) + "\n" for row in texts)
        (folder / f"{split}.jsonl").write_text(text)
    return [
        "data=embedding_files",
        f"data.train={folder}/train.jsonl",
        f"data.validation={folder}/dev.jsonl",
        f"data.test={folder}/test.jsonl",
        "data.text_pair=text_pair",
        "data.largest_score=5",
        "data.batch_size=16",
        "criteria=[pair_score,vectors]",
        "metrics=[spearman]",
        "trainer.accelerator=cpu",
        "callbacks=[best_checkpoint,last_checkpoint,finite_loss]",
    ]


def run(folder: Path, *overrides: str) -> dict:
    """The report of one command, which is given within this process: to start one takes long."""
    report = folder / "report.json"
    if not report.is_file():
        sys.argv = ["lightning-distill", *overrides, f"hydra.run.dir={folder}"]
        with (folder.parent / "output.txt").open("a") as output, redirect_stdout(output):
            main_of_command()
    return json.loads(report.read_text()) if report.is_file() else {}


def show(found: dict[str, dict[str, list[float]]]) -> None:
    for layers, values in found.items():
        teacher = values["teacher"][0]
        print(f"\n{layers} layers; the teacher has {teacher:.2f}\n")
        print("| | test Spearman | of the teacher's | seeds |\n|---|---|---|---|")
        for name, title in TITLES.items():
            mean = statistics.mean(values[name])
            spread = f" ± {statistics.stdev(values[name]):.2f}" if len(values[name]) > 1 else ""
            seeds = " ".join(f"{value:.2f}" for value in values[name])
            print(f"| {title} | {mean:.2f}{spread} | {100 * mean / teacher:.1f} % | {seeds} |")
        pairs = [a - b for a, b in zip(values["distilled"], values["alone"], strict=True)]
        if len(pairs) > 1:
            p = ttest_rel(values["distilled"], values["alone"]).pvalue
            spread = statistics.stdev(pairs)
            print(f"\npaired difference {statistics.mean(pairs):.2f} ± {spread:.2f}, p = {p:.2g}")


if __name__ == "__main__":
    main()
