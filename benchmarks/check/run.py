"""Memory and seconds of a training step: what `job=check` predicts, and what is measured.

    OMP_NUM_THREADS=1 LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/check/run.py

FOLDER holds `snips/{train,valid,test}` with `seq.in` (words) and `seq.out` (tags).

Memory is predicted before a model is made. It is measured in real training steps of Lightning, by
the events of torch's profiler: all that the allocator of the CPU gives and takes back. Seconds are
predicted from the first steps, and measured in a training of its own, over batches that stand for
the whole epoch: every k-th by size. They are seconds of the processor, so that nobody else on the
machine counts.
"""

import argparse
import json
import logging
import os
import random
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_module
from torch import nn
from torch.profiler import profile, ProfilerActivity
from torch.utils.data import DataLoader

import lightning_distill.main  # noqa: F401 - what a configuration refers to
from lightning_distill.checks.pace import seconds_at, size_of, WARM_UP
from lightning_distill.checks.steps import FirstSteps
from lightning_distill.data.some_rows import largest_batch
from lightning_distill.models.gradient_checkpointing import checkpoint_gradients
from lightning_distill.run.data import build_data
from lightning_distill.run.directory import open_run
from lightning_distill.run.distillation import prepare
from lightning_distill.run.memory_on_paper import memory_on_paper
from lightning_distill.run.objective import build_objective
from lightning_distill.run.trainer import build_module, build_trainer

RESULTS = Path(__file__).parent / "results.json"
BOUNDS = {"memory": 0.10, "seconds": 0.20}


def fresh(model_type: str, **sizes: Any) -> list[str]:
    """A teacher with random weights."""
    fields = "".join(f",{name}:{value}" for name, value in sizes.items())
    maker = f"_target_:lightning_distill.students.from_config,model_type:{model_type}"
    return ["~teacher", f"+teacher={{{maker}{fields}}}"]


BERT = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
LLAMA = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
LM = ["data=standard_library", "data.megabytes=0.5", "data.vocab_size=4000", "student=causal_lm"]
SNIPS = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")) / "snips"
T5 = {"hidden_size": 128, "num_layers": 2, "num_heads": 4, "head_dim": 32, "d_ff": 256}
CONFIGURATIONS: dict[str, list[str]] = {
    "classifier": fresh("bert", **BERT),
    "long rows, large batches": [*fresh("bert", **BERT), "data.max_length=128",
                                 "data.batch_size=64"],
    "hidden states": [*fresh("bert", **BERT), "criteria=[hard_label,soft_target,hint]"],
    "layers of the teacher": [*fresh("bert", **BERT), "student=from_teacher", "student.layers=2"],
    "accumulated, SGD": [*fresh("bert", **BERT), "trainer.accumulate_grad_batches=2",
                         "optimizer._target_=torch.optim.SGD", "~optimizer.betas",
                         "~optimizer.eps", "~optimizer.fused"],
    "bfloat16": [*fresh("bert", **BERT), "trainer.precision=bf16-mixed"],
    "recomputed layers": [*fresh("bert", **BERT), "gradient_checkpointing=true",
                          "data.max_length=128"],
    "language model": [*LM, *fresh("llama", **LLAMA), "criteria=[hard_label,soft_target]",
                       "metrics=[perplexity]"],
    "language model, fused": [*LM, *fresh("llama", **LLAMA), "criteria=[fused_linear_divergence]",
                              "metrics=[perplexity]"],
    "masked words": ["data=masked_standard_library", *fresh("bert", **BERT)],
    "encoder and decoder": ["data=function_docs", *fresh("t5", **T5),
                            "student=sequence_to_sequence", "metrics=[perplexity]"],
    "tagger": ["data=token_files", f"data.train={SNIPS / 'train'}", "metrics=[accuracy]",
               f"data.validation={SNIPS / 'valid'}", f"data.test={SNIPS / 'test'}",
               *fresh("bert", **BERT)],
    "pictures": ["data=digits", "student=vit", *fresh("vit", **BERT, patch_size=2)],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(CONFIGURATIONS))
    parser.add_argument(
        "--steps", type=int, default=16, help="whose seconds are measured; 0 measures none"
    )
    options = parser.parse_args()
    logging.getLogger("lightning_distill").setLevel(logging.ERROR)
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name in options.only:
        kept[name] = kept.get(name, {}) | measured(CONFIGURATIONS[name], options.steps)
        # After each, and whole or not at all: a call that is stopped loses one of them.
        whole = {name: kept[name] for name in CONFIGURATIONS if name in kept}
        partly = RESULTS.with_suffix(".part")
        partly.write_text(json.dumps(whole, indent=2) + "\n")
        partly.replace(RESULTS)
    show(whole)


def measured(words: list[str], steps: int) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory() as folder,
        initialize_config_module("lightning_distill.conf", version_base="1.3"),
    ):
        words = [*words, "trainer.accelerator=cpu", "baseline=false", f"output_dir={folder}"]
        cfg = compose("main", overrides=words)
        with open_run(cfg) as cfg:
            begun = time.perf_counter()
            predicted, rows = memory_on_paper(cfg, build_data(cfg.copy()))
            took = time.perf_counter() - begun
            made = prepare(cfg)
            batch = largest_batch(made.data)
            found = {
                "rows": rows,
                "predicted_bytes": predicted.peak,
                "with_criteria": predicted.whole,
                "measured_bytes": peak(made, [batch] * 3),
                "gflop": predicted.flops / 1e9,
                "seconds_to_predict": took,
            }
            if not steps:
                print(json.dumps(found), flush=True)
                return found
            first, later = FirstSteps(2.0, time.process_time), Later()
            fit(made, first)
            batches = list(islice(made.data.train_dataloader(), 64))
            chosen = spread(batches, steps)
            fit(made, later, chosen[:WARM_UP] + chosen)
            each, sizes = first.accumulated, [size_of(b) for b in batches]
            found["predicted_seconds"] = each * seconds_at(first, sum(sizes) / len(sizes))
            found["measured_seconds"] = each * sum(later.seconds) / len(later.seconds)
            found["size"] = sum(sizes) / len(sizes)
            found["measured_size"] = sum(map(size_of, chosen)) / len(chosen)
            print(json.dumps(found), flush=True)
            return found


def module_of(made: Any) -> Any:
    stage = made.stages[0]
    objective = build_objective(stage.cfg)
    return build_module(stage.cfg, made.student, made.teacher, objective, {})


def trainer_of(made: Any, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    cfg = made.stages[0].cfg
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    limits = {"limit_val_batches": 0, "num_sanity_val_steps": 0}
    given = quiet | limits | options
    return build_trainer(cfg, Path(str(cfg.output_dir)), callbacks=list(callbacks), **given)


def spread(batches: list[Any], count: int) -> list[Any]:
    """So many of these batches, small and large ones, in an order that does not follow sizes."""
    order = sorted(batches, key=size_of)
    count = min(count, len(order))
    chosen = [order[(2 * i + 1) * len(order) // (2 * count)] for i in range(count)]
    random.Random(0).shuffle(chosen)
    return chosen


def fit(made: Any, callback: L.Callback, batches: list[Any] | None = None) -> None:
    if batches is None:
        trainer_of(made, callback).fit(module_of(made), datamodule=made.data)
        return
    loader = DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)
    trainer_of(made, callback, max_epochs=1).fit(module_of(made), train_dataloaders=loader)


class Later(L.Callback):
    """The seconds of all batches but the first."""

    def __init__(self):
        self.seconds, self.last = [], 0.0

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.process_time()
        if batch_idx >= WARM_UP:
            self.seconds.append(now - self.last)
        self.last = now


def peak(made: Any, batches: list[Any]) -> int:
    """The most bytes at any moment of some training steps, with the weights of both models."""
    module = module_of(made)
    models = [made.student, made.teacher]
    weights = sum(t.numel() * t.element_size() for model in models for t in {*parameters_of(model)})
    if made.stages[0].cfg.gradient_checkpointing:
        checkpoint_gradients(made.student)
    trainer = trainer_of(made, max_epochs=1)
    loader = DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        trainer.fit(module, train_dataloaders=loader)
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return weights + most


def parameters_of(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def show(results: dict[str, Any]) -> None:
    print("\n| run | memory predicted, MB | measured | off | step predicted, s | measured | off |")
    print("|---|---|---|---|---|---|---|")
    inside = dict.fromkeys(BOUNDS, 0)
    for name, found in results.items():
        cells = [name]
        for what, unit, digits in (("bytes", 1e6, 1), ("seconds", 1, 4)):
            if f"measured_{what}" not in found:
                cells += ["", "", ""]
                continue
            predicted, seen = (found[f"{kind}_{what}"] for kind in ("predicted", "measured"))
            off = predicted / seen - 1
            bound = "memory" if what == "bytes" else "seconds"
            inside[bound] += abs(off) <= BOUNDS[bound]
            figures = [f"{value / unit:.{digits}f}" for value in (predicted, seen)]
            cells += [*figures, f"{100 * off:+.1f} %"]
        print(f"| {' | '.join(cells)} |")
    for name, bound in BOUNDS.items():
        print(f"{name}: {inside[name]} of {len(results)} within {100 * bound:.0f} %")


if __name__ == "__main__":
    main()
