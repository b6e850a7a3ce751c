"""XQuAD: which sentence answers? What a reranker's scores give to one with a third of its layers.

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/rerankers/run.py --model DIR

FOLDER holds `xquad/xquad.en.json`, which has no splits: its articles are dealt out to training,
development and test. The candidates of a question are the sentences of its paragraph, and the one
that holds the answer is relevant. DIR is a folder of transformers, of which the teacher is made: a
cross-encoder that learns from all training questions. Its scores are kept once. Students are made
of its layers (`student=from_teacher`). Dropped, such a student is measured as it is cut. Alone it
learns from the `--labelled` questions that keep their labels. Distilled it also learns from the
teacher's scores of all questions. Both take the same number of steps. Every command is
`lightning-distill`.
"""

import argparse
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

from scipy.stats import ttest_rel

from lightning_distill.main import main as main_of_command

HERE = Path(__file__).parent
TITLES = {"dropped": "layers dropped", "alone": "student alone", "distilled": "student distilled"}
# Of the 48 articles; the others are for training.
TESTS, DEVELOPMENT = 10, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of transformers, without a head")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=800, help="of the training data at most")
    parser.add_argument("--tests", type=int, default=300, help="questions of the test data at most")
    parser.add_argument("--labelled", type=int, default=50, help="training questions with labels")
    parser.add_argument("--layers", type=int, default=2, help="of the students")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--term", default="margin_mse", help="or listwise_kl, soft_target")
    parser.add_argument("--keep", help="folder for the runs; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = compare(options, Path(options.keep or scratch).absolute())
    (HERE / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found)


def compare(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Test MRR in % by what was learnt, a value for each seed."""
    data = prepare(folder, options.questions, options.tests)
    tuning = [
        "job=finetune",
        "student=pretrained",
        f"student.path={Path(options.model).absolute()}",
    ]
    tuning += ["optimizer.lr=5e-5", "trainer.max_epochs=2"]
    run(folder / "teacher", *data, *tuning)
    live = [*data, "teacher=pretrained", f"teacher.path={folder}/teacher/student"]
    if not (folder / "kept" / "manifest.json").is_file():
        run(folder / "cache", *live, "job=cache", f"job.folder={folder}/kept")
    cached = [*data, "teacher=cached", f"teacher.folder={folder}/kept", "student=from_teacher"]
    cached += [f"teacher.path={folder}/teacher/student", f"student.layers={options.layers}"]
    cached += [f"criteria=[hard_label,{options.term}]"]
    still = ["trainer.max_steps=1", "optimizer.lr=1e-12", "scheduler=constant", "baseline=false"]
    report = run(folder / f"cut{options.layers}", *cached, *still)
    found: dict[str, list[float]] = {name: [] for name in ("teacher", *TITLES)}
    found["teacher"].append(100 * report["teacher"]["metrics"]["mrr"])
    found["dropped"].append(100 * report["student"]["metrics"]["mrr"])
    budget = [f"trainer.max_epochs={options.epochs}", "optimizer.lr=1e-4"]
    budget += [f"data.labelled_rows={options.labelled}"]
    for seed in range(options.seeds):
        start = time.perf_counter()
        report = run(folder / f"seed{seed}", *cached, *budget, f"seed={seed}")
        for name, of in (("alone", "baseline"), ("distilled", "student")):
            found[name].append(100 * report[of]["metrics"]["mrr"])
        values = ", ".join(f"{name} {of[-1]:.2f}" for name, of in found.items())
        print(f"seed {seed}: {values} ({time.perf_counter() - start:.0f} s)", flush=True)
    return found


def prepare(folder: Path, questions: int, tests: int) -> list[str]:
    """Write questions with their candidates as jsonl, and return the options that name files."""
    source = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")) / "xquad" / "xquad.en.json"
    if not source.is_file():
        sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds xquad/xquad.en.json.")
    folder.mkdir(parents=True, exist_ok=True)
    articles = json.loads(source.read_text(encoding="utf-8"))["data"]
    random.Random(0).shuffle(articles)
    ends = [TESTS, TESTS + DEVELOPMENT, len(articles)]
    for split, begin, end in zip(("test", "dev", "train"), [0, *ends], ends, strict=False):
        paragraphs = [p for article in articles[begin:end] for p in article["paragraphs"]]
        rows = [row for paragraph in paragraphs for row in rows_of(paragraph)]
        random.Random(0).shuffle(rows)
        rows = rows[: {"train": questions, "test": tests}.get(split, 60)]
        print(f"{split}: {len(rows)} questions, {sum(len(r['sentences']) for r in rows)} pairs")
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines)
    return [
        "data=embedding_files",
        "data.task=ranking",
        f"data.train={folder}/train.jsonl",
        f"data.validation={folder}/dev.jsonl",
        f"data.test={folder}/test.jsonl",
        "data.text=question",
        "data.text_pair=sentences",
        "data.relevance=relevance",
        "data.max_length=96",
        "data.batch_size=8",
        "metrics=[mrr,ndcg]",
        "trainer.accelerator=cpu",
        "callbacks=[best_checkpoint,last_checkpoint,finite_loss]",
    ]


def rows_of(paragraph: dict) -> list[dict]:
    """A row for each question; those of paragraphs with one sentence have nothing to rank."""
    text = paragraph["context"]
    ends = [m.end() for m in re.finditer(r"[.!?][\"')\]]*\s+(?=[\"'(\[A-Z])", text)] + [len(text)]
    sentences = [text[a:b].strip() for a, b in zip([0, *ends], ends, strict=False)]
    found = []
    for asked in paragraph["qas"]:
        start = asked["answers"][0]["answer_start"]
        relevant = next(i for i, end in enumerate(ends) if start < end)
        relevance = [float(i == relevant) for i in range(len(sentences))]
        row = {"question": asked["question"], "sentences": sentences, "relevance": relevance}
        found += [row] if len(sentences) > 1 else []
    return found


def run(folder: Path, *overrides: str) -> dict:
    """The report of one command, which is given within this process: to start one takes long."""
    report = folder / "report.json"
    if not report.is_file():
        sys.argv = ["lightning-distill", *overrides, f"hydra.run.dir={folder}"]
        with (folder.parent / "output.txt").open("a") as output, redirect_stdout(output):
            main_of_command()
    return json.loads(report.read_text()) if report.is_file() else {}


def show(found: dict[str, list[float]]) -> None:
    teacher = found["teacher"][0]
    print(f"\nThe teacher has {teacher:.2f}\n")
    print("| | test MRR | of the teacher's | seeds |\n|---|---|---|---|")
    for name, title in TITLES.items():
        mean = statistics.mean(found[name])
        spread = f" ± {statistics.stdev(found[name]):.2f}" if len(found[name]) > 1 else ""
        seeds = " ".join(f"{value:.2f}" for value in found[name])
        print(f"| {title} | {mean:.2f}{spread} | {100 * mean / teacher:.1f} % | {seeds} |")
    pairs = [a - b for a, b in zip(found["distilled"], found["alone"], strict=True)]
    if len(pairs) > 1:
        p = ttest_rel(found["distilled"], found["alone"]).pvalue
        spread = statistics.stdev(pairs)
        print(f"\npaired difference {statistics.mean(pairs):.2f} ± {spread:.2f}, p = {p:.2g}")


if __name__ == "__main__":
    main()
