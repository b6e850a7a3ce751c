"""Say what a function does: what a teacher adds to a small encoder-decoder, over several seeds.

    python benchmarks/sequence_to_sequence/run.py

The data are the functions of Python's standard library and the first lines of their docstrings. A
T5 of three encoder and two decoder layers is trained once and teaches students of one layer each,
from fresh weights. Every command is `lightning-distill`, and both students take the same number of
steps.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scipy.stats import ttest_rel

HERE = Path(__file__).parent
DATA = ["data=function_docs", "data.max_length=64", "data.max_target_length=24"]
MEASURED = ["metrics=[perplexity,rouge]", "metrics.rouge.max_new_tokens=20"]
SMALL = ["trainer.accelerator=cpu", "data.vocab_size=2000", "metrics.rouge.rows=100"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1200, help="functions, of all splits")
    parser.add_argument("--epochs", type=int, default=4, help="of a student")
    parser.add_argument("--teacher-epochs", type=int, default=8)
    parser.add_argument("--keep", help="folder for the runs; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = compare(options, Path(options.keep or scratch))
    (HERE / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found)


def compare(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Perplexity and ROUGE-L of teacher and students on test rows, one value for each seed."""
    data = [*DATA, *MEASURED, *SMALL, f"data.rows={options.rows}"]
    teacher = folder / "teacher"
    if not (teacher / "report.json").is_file():
        start = time.perf_counter()
        sizes = ["student.hidden_size=128", "student.num_layers=3", "student.num_decoder_layers=2"]
        sizes += ["student.head_dim=32", "student.d_ff=384", "student.dropout_rate=0.1"]
        tune = ["job=finetune", "student=sequence_to_sequence", "optimizer.lr=2e-3"]
        run(teacher, *data, *tune, *sizes, f"trainer.max_epochs={options.teacher_epochs}")
        print(f"teacher: {time.perf_counter() - start:.0f} s", flush=True)
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(options.seeds):
        start = time.perf_counter()
        models = ["teacher=pretrained", f"teacher.path={teacher}/student"]
        student = ["student=sequence_to_sequence", "optimizer.lr=2e-3", f"seed={seed}"]
        # One validation, at the end: the last weights are measured.
        epochs = [f"trainer.max_epochs={options.epochs}"]
        epochs += [f"+trainer.check_val_every_n_epoch={options.epochs}"]
        terms = ["criteria=[fused_linear_divergence]"]
        terms += ["criteria.fused_linear_divergence.criterion.label_weight=0.5"]
        report = run(folder / f"seed{seed}", *data, *models, *student, *epochs, *terms)
        for name in ("teacher", "baseline", "student"):
            for metric in ("perplexity", "rouge"):
                values = found.setdefault(metric, {}).setdefault(name, [])
                values.append(report[name]["metrics"][metric])
        values = {m: {n: round(v[-1], 4) for n, v in own.items()} for m, own in found.items()}
        print(f"seed {seed}: {values} ({time.perf_counter() - start:.0f} s)", flush=True)
    return found


def run(folder: Path, *overrides: str) -> dict:
    command = [sys.executable, "-m", "lightning_distill.main", *overrides]
    done = subprocess.run([*command, f"hydra.run.dir={folder}"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads((folder / "report.json").read_text())


def show(found: dict[str, dict[str, list[float]]]) -> None:
    titles = {"teacher": "teacher", "baseline": "student alone", "student": "student distilled"}
    for metric, own in found.items():
        print(f"| | {metric} | seeds |\n|---|---|---|")
        for name, values in own.items():
            spread = f" ± {statistics.stdev(values):.4g}" if len(values) > 1 else ""
            seeds = " ".join(f"{value:.4g}" for value in values)
            print(f"| {titles[name]} | {statistics.mean(values):.4g}{spread} | {seeds} |")
        if len(own["student"]) > 1:
            pairs = [a - b for a, b in zip(own["student"], own["baseline"], strict=True)]
            p = ttest_rel(own["student"], own["baseline"]).pvalue
            spread = statistics.stdev(pairs)
            print(f"paired difference {statistics.mean(pairs):.4g} ± {spread:.4g}, p = {p:.2g}")


if __name__ == "__main__":
    main()
