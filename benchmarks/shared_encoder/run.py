"""How long a training step takes with the teacher's encoder computed once, and with two of them.

    python benchmarks/shared_encoder/run.py --out benchmarks/shared_encoder/results.json

A T5 of 6 and 6 layers teaches one of 6 and 2 whose encoder is a frozen copy. Both ways take the
same steps on the same batches, in turn, and their losses are compared.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
import transformers

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel, SoftTarget
from lightning_distill.students import from_teacher
from lightning_distill.tasks import SequenceToSequence

WIDTH, VOCABULARY, ROWS = 256, 4000, 16
SOURCE, TARGET = 128, 24


def module_of() -> DistillationModule:
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=WIDTH // 4, num_heads=4, d_ff=4 * WIDTH,
        num_layers=6, num_decoder_layers=6, decoder_start_token_id=0,
    )  # fmt: skip
    teacher = transformers.T5ForConditionalGeneration(config).eval()
    student = from_teacher(teacher, {"decoder": 2}, freeze="encoder")
    logits = {"student": "student.logits", "teacher": "teacher.logits"}
    labels = {"student": "student.logits", "labels": "batch.labels"}
    terms = {"label": Term(HardLabel(), labels), "soft": Term(SoftTarget(), logits)}
    return DistillationModule(student, teacher, Objective(terms), task=SequenceToSequence())


def batch_of(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (ROWS, SOURCE), generator=draw)
    labels = torch.randint(3, VOCABULARY, (ROWS, TARGET), generator=draw)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def step(module: DistillationModule, batch: dict, shared: bool) -> tuple[float, float]:
    """Seconds and loss of a forward and a backward pass."""
    module.shared_encoder.is_copy = shared
    module.zero_grad()
    torch.manual_seed(1)
    start = time.perf_counter()
    loss = module.losses(batch)["loss"]
    loss.backward()
    return time.perf_counter() - start, float(loss.detach())


def processor() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    module = module_of()
    module.prepare(batch_of(0))
    assert module.shared_encoder.is_copy
    ratios, seconds, apart = [], {True: [], False: []}, 0.0
    for round_ in range(-2, asked.rounds):
        losses = {}
        for shared in (True, False) if round_ % 2 else (False, True):
            took, losses[shared] = step(module, batch_of(round_ + 2), shared)
            if round_ >= 0:
                seconds[shared].append(took)
        apart = max(apart, abs(losses[True] - losses[False]))
        if round_ >= 0:
            ratios.append(seconds[True][-1] / seconds[False][-1])
    found = {
        "model": f"T5 6+6 -> 6+2, width {WIDTH}, {ROWS} rows of {SOURCE} and {TARGET} tokens",
        "rounds": asked.rounds,
        "ms a step, one encoder": round(1000 * statistics.median(seconds[True]), 1),
        "ms a step, two encoders": round(1000 * statistics.median(seconds[False]), 1),
        "ratio, median": round(statistics.median(ratios), 3),
        "ratio, from": round(min(ratios), 3),
        "ratio, to": round(max(ratios), 3),
        "largest difference of the losses": apart,
        "cpu": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(found, indent=2))
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
