"""Smaller students of one size, cut from one teacher by what matters, by magnitude or at random.

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/smaller/run.py sst2
    python benchmarks/smaller/run.py lm_stdlib

FOLDER holds `sst2/{train,dev,test}.tsv`. One teacher of eight layers is trained with seed 0.
Students have a quarter of its layers (`depth`), or as many parameters with all layers (`width`), or
with less of both (`both`). Those of one cut have the same shape, so that only the choice of weights
differs. The teacher's logits alone teach them for so many steps. Every command is
`lightning-distill`. What is in the results already is not run again, nor is a student that another
way to choose has made already.
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scipy.stats import ttest_rel

import lightning_distill.jobs  # noqa: F401  what each command would import
from lightning_distill.main import main as main_of_command

HERE = Path(__file__).parent
LAYERS, KEPT = 8, 2
CUTS = ("depth", "width", "both")
KINDS = ("activations", "gradient", "magnitude", "random")
# By arm and seed: the metric on the test rows and the student's parameters.
Found = dict[str, dict[str, dict[str, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=["sst2", "lm_stdlib"])
    parser.add_argument("--teacher-epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 100, 1000])
    parser.add_argument("--cuts", nargs="+", default=CUTS, choices=CUTS)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--keep", help="folder for the runs; a temporary one by default")
    options = parser.parse_args()
    results = HERE / f"{options.data}.json"
    found = json.loads(results.read_text()) if results.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        compare(options, Path(options.keep or scratch).absolute(), found, results)
    show(found, options)


def compare(options: argparse.Namespace, folder: Path, found: Found, results: Path) -> None:
    """Fill in what is missing, and write it after each run."""
    words, metric, teacher_words = prepare(options.data)
    words += ["trainer.accelerator=cpu", "preview=false"]
    teacher = folder / "teacher"
    # The orders of depth, width and both matter: the first says how many parameters there are.
    arms = [
        (seed, cut, kind, steps)
        for seed in options.seeds
        for cut in sorted(options.cuts, key=CUTS.index)
        for kind in options.kinds
        for steps in options.steps
    ]
    for seed, cut, kind, steps in arms:
        name = f"{cut}, {kind}, {steps}"
        if str(seed) in found.get(name, {}):
            continue
        same = same_student(found, cut, kind, seed, options.kinds)
        if steps and same is not None and str(seed) in found.get(f"{cut}, {same}, {steps}", {}):
            found.setdefault(name, {})[str(seed)] = found[f"{cut}, {same}, {steps}"][str(seed)]
            results.write_text(json.dumps(found, indent=1) + "\n")
            print(f"{name}, seed {seed}: the student is that of {same}", flush=True)
            continue
        if not (teacher / "report.json").is_file():
            epochs = f"trainer.max_epochs={options.teacher_epochs}"
            run(teacher, *words, "job=finetune", *teacher_words, epochs, "seed=0")
        start = time.perf_counter()
        # Its answers are the same for all, and are kept.
        models = ["teacher=caching", f"teacher.path={teacher}/student"]
        models += [f"teacher.folder={folder}/answers", "baseline=false", "optimizer.lr=5e-4"]
        shape = ["student=pruned", f"student.importance={kind}", *shape_of(cut, found)]
        # At so small a learning rate the one step that there must be changes nothing.
        length = [f"trainer.max_steps={max(steps, 1)}", "trainer.max_epochs=-1"]
        length += ["optimizer.lr=1e-12"] if steps == 0 else []
        path = folder / f"{name.replace(', ', '-')}-{seed}"
        report = run(path, *words, *models, *shape, *taught(options.data), f"seed={seed}", *length)
        rows = {"teacher": report["teacher"], name: report["student"]}
        for which, row in rows.items():
            of_seed = found.setdefault(which, {}).setdefault(str(seed), {})
            of_seed |= {"metric": row["metrics"][metric], "parameters": row["parameters"]}
        results.write_text(json.dumps(found, indent=1) + "\n")
        seconds = time.perf_counter() - start
        value = found[name][str(seed)]["metric"]
        print(f"{name}, seed {seed}: {value:.4f} ({seconds:.0f} s)", flush=True)


def same_student(found: Found, cut: str, kind: str, seed: int, kinds: Sequence[str]) -> str | None:
    """Another way to choose that has chosen the same: its answers before training are the same.

    It learns the same from the same rows in the same order, so there is no need to train it again.
    """
    before = {other: found.get(f"{cut}, {other}, 0", {}).get(str(seed)) for other in kinds}
    others = (other for other, row in before.items() if other != kind and row == before[kind])
    return next(others, None) if before.get(kind) else None


def shape_of(cut: str, found: Found) -> list[str]:
    """The options that say what a student has less of."""
    if cut == "depth":
        return [f"student.layers={KEPT}", "student.keep=importance"]
    deep = next((by for name, by in found.items() if name.startswith("depth")), None)
    if deep is None:
        sys.exit("Measure the cut depth first: it says how many parameters the others have.")
    parameters = next(iter(deep.values()))["parameters"]
    size = f"student.parameters={parameters:.0f}"
    return [size, "student.keep=importance", *([f"student.layers={LAYERS}"] * (cut == "width"))]


def prepare(data: str) -> tuple[list[str], str, list[str]]:
    """The options of the data, the metric, and the options of the teacher."""
    sizes = {"hidden_size": 128, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
    sizes["intermediate_size"] = 512
    if data == "sst2":
        folder = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")).absolute() / "sst2"
        if not (folder / "train.tsv").is_file():
            sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds sst2/train.tsv.")
        words, metric = ["experiment=sst2", f"data_dir={folder}", "metrics=[accuracy]"], "accuracy"
        # At 1e-3 eight layers learn nothing.
        kind, rate = ["student=from_config"], 3e-4
    else:
        words, metric = ["experiment=lm_stdlib", "metrics=[perplexity]"], "perplexity"
        kind, rate = ["student=causal_lm", "criteria=[fused_linear_cross_entropy]"], 1e-3
        sizes |= {"num_key_value_heads": 4, "head_dim": 32}
    options = [f"student.{name}={value}" for name, value in sizes.items()]
    return words, metric, [*kind, *options, f"optimizer.lr={rate}"]


def taught(data: str) -> list[str]:
    """By the teacher's logits alone."""
    term = "soft_target" if data == "sst2" else "fused_linear_divergence"
    alone = f"criteria=[{term}]", f"criteria.{term}.weight=1"
    more = [f"criteria.{term}.criterion.label_weight=0"] if data == "lm_stdlib" else []
    return [*alone, *more]


def run(folder: Path, *overrides: str) -> dict:
    # What was typed last counts, as on the command line of a shell script.
    typed = [*{o.partition("=")[0]: o for o in overrides}.values(), f"hydra.run.dir={folder}"]
    folder.mkdir(parents=True, exist_ok=True)
    # Forked, for a new Python would import Lightning anew: a third of the time of a short run.
    process = multiprocessing.get_context("fork").Process(target=command, args=(typed, folder))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit((folder / "printed.txt").read_text()[-2000:])
    return json.loads((folder / "report.json").read_text())


def command(typed: list[str], folder: Path) -> None:
    """As `lightning-distill` with these words."""
    with open(folder / "printed.txt", "w") as printed:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(printed.fileno(), stream.fileno())
        sys.argv = ["lightning-distill", *typed]
        main_of_command()


def show(found: Found, options: argparse.Namespace) -> None:
    """A line for each cut, choice and number of steps."""
    is_loss = options.data == "lm_stdlib"
    print(f"| cut | chosen by | steps | {'perplexity' if is_loss else 'accuracy in %'} ", end="")
    print("| recovered | p against random |\n" + "|---" * 6 + "|")
    teacher = values_of(found, "teacher")
    print(f"| | teacher | | {spread(teacher, is_loss)} | | |")
    for name in found:
        if name == "teacher":
            continue
        cut, kind, steps = name.split(", ")
        values, other = values_of(found, name), values_of(found, f"{cut}, random, {steps}")
        share = recovered(values_of(found, f"{cut}, {kind}, 0"), values, teacher, is_loss)
        cells = [cut, kind, steps, spread(values, is_loss), "" if steps == "0" else share]
        print(f"| {' | '.join(cells)} | {p_value(values, other)} |")


def values_of(found: Found, name: str) -> list[float]:
    return [row["metric"] for _, row in sorted(found.get(name, {}).items())]


def recovered(before: list[float], after: list[float], teacher: list[float], is_loss: bool) -> str:
    """What share of what the cut has lost training gives back; of perplexity, of its logarithm."""
    if not before or not after:
        return ""
    lost, now, whole = (
        statistics.mean([math.log(v) for v in values] if is_loss else values)
        for values in (before, after, teacher)
    )
    return f"{(now - lost) / (whole - lost):.0%}"


def spread(values: list[float], is_loss: bool) -> str:
    values = [v if is_loss else 100 * v for v in values]
    more = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{more}"


def p_value(values: list[float], other: list[float]) -> str:
    # Of pairs that all differ by as much there is none.
    if len(values) != len(other) or len({a - b for a, b in zip(values, other, strict=True)}) < 2:
        return ""
    return f"{ttest_rel(values, other).pvalue:.2g}"


if __name__ == "__main__":
    main()
