"""A model in fewer bits: rounded afterwards (PTQ), trained so (QAT), or taught by itself (QAD).

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/quantised/run.py sst2
    python benchmarks/quantised/run.py docstrings
    python benchmarks/quantised/run.py lm_stdlib
    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/quantised/run.py sst2 --model DIR

FOLDER holds `sst2/{train,dev,test}.tsv`. One model is trained on all labels (or DIR fine-tuned),
with seed 0. `ptq` rounds it as it is; `qat` rounds it and trains it by labels; `qad` rounds it and
lets it learn from itself before rounding, by the forward KL at temperature 1; `qad, scales` trains
its scales alone. Both use no labels, and keep the weights with the least KL on the validation rows.
All see the same rows for as many steps. Every command is `lightning-distill`. What is in the
results already is not run again.
"""

import argparse
import json
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from scipy.stats import ttest_rel

import lightning_distill.jobs  # noqa: F401  what each command would import
from lightning_distill.main import main as main_of_command

HERE = Path(__file__).parent
ARMS = ("ptq", "qat", "qad", "qad, scales")
# By arm and seed: the metric on the test rows, and the KL to the model before rounding.
Found = dict[str, dict[str, dict[str, float]]]
STEPS, RATE = 500, 2e-5
SCHEMES = ("int8", "int8_weights", "int4", "int4_weights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=["sst2", "docstrings", "lm_stdlib"])
    parser.add_argument("--model", help="folder of a pretrained encoder, for sst2")
    parser.add_argument("--model-epochs", type=int, default=5)
    parser.add_argument("--scheme", default="int4", choices=SCHEMES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument(
        "--rate", type=float, default=RATE, help="of weights; 2e-5 is that of LLM-QAT"
    )
    parser.add_argument("--scales-rate", type=float, default=1e-5, help="of scales")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--set", nargs="*", default=[], help="further options of all ways")
    parser.add_argument("--keep", help="folder for the runs; a temporary one by default")
    options = parser.parse_args()
    results = HERE / f"{name_of(options)}.json"
    found = json.loads(results.read_text()) if results.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        compare(options, Path(options.keep or scratch).absolute(), found, results)
    values = {
        arm: {what: [row[what] for _, row in sorted(by.items())] for what in ("metric", "kl")}
        for arm, by in found.items()
    }
    show(values, "perplexity" if options.data == "lm_stdlib" else "accuracy in %")


def name_of(options: argparse.Namespace) -> str:
    """What is measured, and whatever else than the defaults it is measured with."""
    name = f"{options.data}{'_pretrained' if options.model else ''}_{options.scheme}"
    name += f"_{options.steps}_steps" if options.steps != STEPS else ""
    name += f"_rate_{options.rate:g}" if options.rate != RATE else ""
    return "_".join([name, *(re.sub(r"\W+", "_", word) for word in options.set)])


def compare(options: argparse.Namespace, folder: Path, found: Found, results: Path) -> None:
    """Fill in what is missing, and write it after each run."""
    of_texts = options.data == "lm_stdlib"
    metric, times = ("perplexity", 1.0) if of_texts else ("accuracy", 100.0)
    data = [*data_of(options.data), "trainer.accelerator=cpu", "preview=false"]
    model = folder / "model"
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for arm in options.arms:
            if str(seed) in found.get(arm, {}):
                continue
            if not (model / "report.json").is_file():
                run(model, *data, "job=finetune", *model_of(options), "seed=0")
            start = time.perf_counter()
            words = [*data, *words_of(arm, options, of_texts), f"student.path={model}/student"]
            path = folder / f"{arm.replace(', ', '-')}-{name_of(options)}-{seed}"
            report = run(path, *words, *options.set, f"seed={seed}")
            for name, row in {"before": report["teacher"], arm: report["student"]}.items():
                # Of the model before, nothing but itself.
                kl = row["metrics"].get("forward_kl", 0.0)
                own = {"metric": times * row["metrics"][metric], "kl": kl}
                found.setdefault(name, {})[str(seed)] = own
            results.write_text(json.dumps(found, indent=1) + "\n")
            took, value = time.perf_counter() - start, found[arm][str(seed)]["metric"]
            print(f"{arm}, seed {seed}: {value:.2f} ({took:.0f} s)", flush=True)


def data_of(name: str) -> list[str]:
    """The options that name the data and what is measured."""
    if name == "lm_stdlib":
        return ["experiment=lm_stdlib", "metrics=[perplexity,agreement,forward_kl]"]
    metrics = "metrics=[accuracy,agreement,forward_kl]"
    if name == "docstrings":
        return ["data=docstrings", "data.labelled_rows=null", metrics]
    folder = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")).absolute() / "sst2"
    if not (folder / "train.tsv").is_file():
        sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds sst2/train.tsv.")
    return ["experiment=sst2", f"data_dir={folder}", metrics]


def model_of(options: argparse.Namespace) -> list[str]:
    """How the model before rounding is made and trained; of what it learns are labels alone."""
    epochs = [f"trainer.max_epochs={options.model_epochs}"]
    if options.model:
        path = f"student.path={Path(options.model).absolute()}"
        return ["student=pretrained", path, *epochs, "optimizer.lr=5e-5"]
    sizes = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    kind, sizes["intermediate_size"] = ["student=from_config"], 256
    if options.data == "lm_stdlib":
        kind = ["student=causal_lm", "criteria=[fused_linear_cross_entropy]"]
        sizes |= {"num_key_value_heads": 4, "head_dim": 32}
    return [*kind, *(f"student.{k}={v}" for k, v in sizes.items()), *epochs, "optimizer.lr=1e-3"]


def words_of(arm: str, options: argparse.Namespace, of_texts: bool) -> list[str]:
    """The options of one way to a model of fewer bits."""
    how = f"{{scheme:{options.scheme},train:{'scales' if 'scales' in arm else 'weights'}}}"
    words = ["student=pretrained", "teacher=unquantised", f"student.quantization={how}"]
    words += ["baseline=false", f"trainer.max_steps={options.steps}", "trainer.max_epochs=-1"]
    words += [f"optimizer.lr={options.scales_rate if 'scales' in arm else options.rate}"]
    if arm == "ptq":
        # At so small a learning rate the one step that there must be changes nothing.
        words += ["trainer.max_steps=1", "optimizer.lr=1e-12"]
    if arm == "qat":
        term = "fused_linear_cross_entropy" if of_texts else "hard_label"
        # As training on labels is done; the command takes it out where a model learns from itself.
        return [*words, "student.dropout=true", f"criteria=[{term}]"]
    term = "fused_linear_divergence" if of_texts else "soft_target"
    more = "criterion.label_weight=0" if of_texts else "criterion.temperature=1"
    words += ["monitor=val/forward_kl", "mode=min"]
    return [*words, f"criteria=[{term}]", f"criteria.{term}.{more}", f"criteria.{term}.weight=1"]


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


def show(found: dict[str, dict[str, list[float]]], metric: str) -> None:
    print(f"| | {metric} | KL to before | gap of ptq closed | p against ptq | p, qad against qat |")
    print("|---" * 6 + "|")
    ptq, qat = (found.get(name, {}).get("metric") for name in ("ptq", "qat"))
    for name, row in found.items():
        values = row["metric"]
        cells = [spread(values, ".2f"), spread(row["kl"], ".3g"), "", "", ""]
        if ptq is not None and name not in ("ptq", "before"):
            gap = statistics.mean(found["before"]["metric"]) - statistics.mean(ptq)
            gain = statistics.mean(values) - statistics.mean(ptq)
            cells[2] = f"{gain / gap:.0%}" if gap else "no gap"
            cells[3] = p_value(values, ptq)
        if name == "qad" and qat is not None:
            cells[4] = p_value(values, qat)
        print(f"| {name} | " + " | ".join(cells) + " |")


def spread(values: list[float], digits: str) -> str:
    more = f" ± {statistics.stdev(values):{digits}}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{digits}}{more}"


def p_value(values: list[float], other: list[float]) -> str:
    # Of pairs that all differ by as much there is none.
    differ = len({a - b for a, b in zip(values, other, strict=True)}) > 1
    return f"{ttest_rel(values, other).pvalue:.2g}" if differ else ""


if __name__ == "__main__":
    main()
