"""XQuAD in English: what a teacher adds to a reader with few answers, over several seeds.

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/question_answering/run.py --teacher DIR

FOLDER holds `xquad/xquad.en.json`, which has no splits: its articles are dealt out to training,
validation and test. DIR is a pretrained encoder. It is fine-tuned once on all training questions,
and its answers are kept. Students are made of two of its layers and see the same questions,
`--labelled` of which keep their answers. Alone a student learns from these; distilled it also
learns from the teacher's logits on all. Every command is `lightning-distill`, and both students
take the same number of steps.
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
METRICS = ("answer_f1", "answer_exact_match")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", required=True, help="folder of a pretrained encoder")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labelled", type=int, default=100, help="questions with answers")
    parser.add_argument("--layers", type=int, default=2, help="of a student")
    parser.add_argument("--epochs", type=int, default=2, help="of a student")
    parser.add_argument("--teacher-epochs", type=int, default=4)
    parser.add_argument("--keep", help="folder for the runs; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = compare(options, Path(options.keep or scratch))
    (HERE / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found)


def compare(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Both metrics in % of teacher and students, one value for each seed."""
    data = prepare(folder)
    teacher = folder / "teacher"
    if not (teacher / "report.json").is_file():
        start = time.perf_counter()
        path = f"student.path={Path(options.teacher).absolute()}"
        tune = ["job=finetune", "student=pretrained", path, "optimizer.lr=2e-4"]
        run(teacher, *data, *tune, f"trainer.max_epochs={options.teacher_epochs}")
        print(f"teacher: {time.perf_counter() - start:.0f} s", flush=True)
    model = [f"teacher.path={teacher.absolute()}/student", "student=from_teacher"]
    model += [f"student.layers={options.layers}"]
    kept = folder / "answers"
    if not (kept / "manifest.json").is_file():
        run(folder / "cache", "job=cache", f"job.folder={kept.absolute()}", *data,
            "teacher=pretrained", *model)  # fmt: skip
    found: dict[str, dict[str, list[float]]] = {metric: {} for metric in METRICS}
    for seed in range(options.seeds):
        start = time.perf_counter()
        models = ["teacher=cached", f"teacher.folder={kept.absolute()}", *model]
        budget = [f"data.labelled_rows={options.labelled}", f"trainer.max_epochs={options.epochs}"]
        report = run(folder / f"seed{seed}", *data, *models, *budget, "optimizer.lr=3e-4",
                     f"seed={seed}")  # fmt: skip
        for metric in METRICS:
            for name in ("teacher", "baseline", "student"):
                value = 100 * report[name]["metrics"][metric]
                found[metric].setdefault(name, []).append(value)
        values = ", ".join(f"{n} {v[-1]:.2f}" for n, v in found[METRICS[0]].items())
        print(f"seed {seed}: {values} ({time.perf_counter() - start:.0f} s)", flush=True)
    return found


def prepare(folder: Path) -> list[str]:
    """Deal the articles out, and return the options that name all files."""
    source = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")) / "xquad" / "xquad.en.json"
    if not source.is_file():
        sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds xquad/xquad.en.json.")
    articles = json.loads(source.read_text())["data"]
    folder.mkdir(parents=True, exist_ok=True)
    words = ["data=question_files", "data.max_length=160", "data.stride=32", "data.batch_size=16"]
    for split, own in (("validation", articles[::6]), ("test", articles[1::6] + articles[2::6])):
        articles = [article for article in articles if article not in own]
        words.append(written(folder, split, own))
    return [*words, written(folder, "train", articles), "trainer.accelerator=cpu"]


def written(folder: Path, split: str, articles: list) -> str:
    file = folder / f"{split}.json"
    file.write_text(json.dumps({"data": articles}))
    return f"data.{split}={file.absolute()}"


def run(folder: Path, *overrides: str) -> dict:
    command = [sys.executable, "-m", "lightning_distill.main", *overrides]
    done = subprocess.run([*command, f"hydra.run.dir={folder}"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    report = folder / "report.json"
    return json.loads(report.read_text()) if report.is_file() else {}


def show(found: dict[str, dict[str, list[float]]]) -> None:
    titles = {"teacher": "teacher", "baseline": "student alone", "student": "student distilled"}
    for metric, models in found.items():
        print(f"\n| | {metric} | seeds |\n|---|---|---|")
        for name, values in models.items():
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            seeds = " ".join(f"{value:.2f}" for value in values)
            print(f"| {titles[name]} | {statistics.mean(values):.2f}{spread} | {seeds} |")
        if len(models["student"]) > 1:
            pairs = [a - b for a, b in zip(models["student"], models["baseline"], strict=True)]
            p = ttest_rel(models["student"], models["baseline"]).pvalue
            spread = statistics.stdev(pairs)
            print(f"\npaired difference {statistics.mean(pairs):.2f} ± {spread:.2f}, p = {p:.2g}")


if __name__ == "__main__":
    main()
