"""Smaller students of one size, cut from one teacher by what matters, by magnitude or at random.

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/smaller/run.py sst2
    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/smaller/run.py lm
    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/smaller/run.py sst2 --teacher DIR

FOLDER holds `sst2/{train,dev,test}.tsv` and `wikitext2/{valid,test}.txt`. One teacher is trained
(or DIR fine-tuned) with seed 0; every student has the same shape, so that only its weights differ,
and is taught by the teacher's logits for so many steps. Every command is `lightning-distill`.
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
KINDS = ("activations", "gradient", "magnitude", "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=["sst2", "lm"])
    parser.add_argument("--teacher", help="folder of a pretrained encoder, for sst2")
    parser.add_argument("--teacher-epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 100, 1000])
    parser.add_argument("--parameters", default="40%", help="of the teacher's")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--keep", help="folder for the runs; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = compare(options, Path(options.keep or scratch))
    name = f"{options.data}{'_pretrained' if options.teacher else ''}.json"
    (HERE / name).write_text(json.dumps(found, indent=2) + "\n")
    show(found, "perplexity" if options.data == "lm" else "accuracy in %")


def compare(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """The metric of each student on the test rows, one value for each seed."""
    data, metric, times = prepare(options.data)
    teacher = folder / "teacher"
    if not (teacher / "report.json").is_file():
        run(teacher, *data, "job=finetune", *teacher_of(options), "seed=0")
    found: dict[str, list[float]] = {}
    models = ["teacher=pretrained", f"teacher.path={teacher}/student", "student=pruned"]
    models += [f"student.parameters={options.parameters}", "baseline=false", "optimizer.lr=2e-4"]
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for kind in options.kinds:
            for steps in options.steps:
                start = time.perf_counter()
                name = f"{kind}-{steps}"
                # At so small a learning rate the one step that there must be changes nothing.
                length = [f"trainer.max_steps={max(steps, 1)}", "trainer.max_epochs=-1"]
                length += ["optimizer.lr=1e-12"] if steps == 0 else []
                choice = [f"student.importance={kind}", f"seed={seed}", *length]
                report = run(folder / f"{name}-{seed}", *data, *models, *choice)
                found.setdefault(name, []).append(times * report["student"]["metrics"][metric])
                of_teacher = times * report["teacher"]["metrics"][metric]
                seconds = time.perf_counter() - start
                print(f"{name}, seed {seed}: {found[name][-1]:.2f} ({seconds:.0f} s)", flush=True)
        found.setdefault("teacher", []).append(of_teacher)
    return found


def prepare(data: str) -> tuple[list[str], str, float]:
    """The options that name all files, the metric, and what it is multiplied by."""
    source = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")).absolute()
    if data == "sst2":
        files = {s: source / "sst2" / f"{f}.tsv" for s, f in zip(
            ("train", "validation", "test"), ("train", "dev", "test"), strict=True)}  # fmt: skip
        base = ["data=text_files", "data.columns=[text,label]"]
        metric, times = "accuracy", 100.0
    else:
        files = {"train": source / "wikitext2" / "valid.txt"}
        files["test"] = source / "wikitext2" / "test.txt"
        base = ["data=text_corpus", "data.vocab_size=1024"]
        metric, times = "perplexity", 1.0
    for path in files.values():
        if not path.is_file():
            sys.exit(f"Set LIGHTNING_DISTILL_DATA to the folder that holds {path.parent.name}/.")
    names = [f"data.{split}={path}" for split, path in files.items()]
    return [*base, *names, "trainer.accelerator=cpu"], metric, times


def teacher_of(options: argparse.Namespace) -> list[str]:
    """How the teacher is made and trained."""
    epochs = [f"trainer.max_epochs={options.teacher_epochs}"]
    if options.teacher:
        path = f"student.path={Path(options.teacher).absolute()}"
        return ["student=pretrained", path, *epochs, "optimizer.lr=5e-5"]
    kind = ["student=causal_lm"] if options.data == "lm" else []
    sizes = ["student.hidden_size=128", "student.num_hidden_layers=4"]
    sizes += ["student.num_attention_heads=4", "student.intermediate_size=512"]
    sizes += ["student.num_key_value_heads=4", "student.head_dim=32"] if kind else []
    return [*kind, *sizes, *epochs, "optimizer.lr=1e-3"]


def run(folder: Path, *overrides: str) -> dict:
    # What was typed last counts, as on the command line of a shell script.
    typed = {o.partition("=")[0]: o for o in overrides}
    command = [sys.executable, "-m", "lightning_distill.main", *typed.values()]
    done = subprocess.run([*command, f"hydra.run.dir={folder}"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads((folder / "report.json").read_text())


def show(found: dict[str, list[float]], metric: str) -> None:
    print(f"| student, steps | {metric} | p against random |\n|---|---|---|")
    for name, values in found.items():
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        other = found.get(f"random-{name.rpartition('-')[2]}", values)
        pairs = {a - b for a, b in zip(values, other, strict=True)}
        p = f"{ttest_rel(values, other).pvalue:.2g}" if len(pairs) > 1 else ""
        print(f"| {name} | {statistics.mean(values):.2f}{spread} | {p} |")


if __name__ == "__main__":
    main()
