"""The fused head and loss of language models beside other ways to the same gradient.

    python benchmarks/lm_loss/run.py                 # both parts, about six minutes
    python benchmarks/lm_loss/run.py --rounds 2      # quicker and rougher

Two parts, with a vocabulary of 50257, in float32: `loss`, forward and backward of the forward KL
from hidden states of 1024 tokens (256 wide in the student, 512 in the teacher) and two heads; and
`step`, forward of a GPT-2 teacher (8 layers of 256) and forward and backward of a student (2 of
128, embeddings tied) on 4 rows of 256 tokens, without an optimizer.

One thread, pinned where the system allows, process CPU time; each round runs all arms, in a rotated
order, and the minimum over rounds counts. All arms must give the same value and gradients, or
nothing is printed. Memory is measured in a process of its own for each arm: the largest resident
memory during one step above that just before, after a step with few tokens to warm up.
liger_kernel is an arm where it is installed (`pip install liger-kernel==0.8.5 --no-deps`).
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn, Tensor
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from lightning_distill.criteria import FusedLinearDivergence, SoftTarget
from lightning_distill.criteria._fused_linear import compute, Side, TeacherLogits, Work

TOKENS, VOCABULARY = 1024, 50257
LIGER = find_spec("liger_kernel") is not None
# Against which arm, and at most how much: of time, of memory.
GOALS = {
    "naive": (0.70, 0.08),
    "liger, 1 chunk of 1024": (0.85, 0.25),
    "liger, 4 chunks of 256": (0.85, 0.25),
    "matrix products alone": (1.12, None),
}


def naive(hs, ht, student, teacher, mask=None):
    logits = student(hs)
    with torch.no_grad():
        target = teacher(ht)
    log_q, log_p = logits.log_softmax(-1), target.log_softmax(-1)
    loss = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    loss.outputs = logits, target  # as the outputs of models, they live until the step ends
    return loss


def frugal(hs, ht, student, teacher, mask=None):
    with torch.no_grad():
        target = F.log_softmax(teacher(ht), -1)
    return F.kl_div(F.log_softmax(student(hs), -1), target, reduction="batchmean", log_target=True)


def checkpointed(hs, ht, student, teacher, mask=None):
    def chunk(a, b):
        return frugal(a, b, student, teacher) * len(a)

    parts = zip(hs.split(256), ht.split(256), strict=True)
    return sum(checkpoint(chunk, a, b, use_reentrant=False) for a, b in parts) / len(hs)


def liger(hs, ht, student, teacher, mask=None, chunk_size=1024):
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(0.0, 1.0, beta=0.0, compiled=False, chunk_size=chunk_size)
    labels = torch.zeros(len(hs), dtype=torch.long)
    return loss(hs, student.weight, ht, teacher.weight, labels)


def ours(hs, ht, student, teacher, mask=None):
    return FusedLinearDivergence(SoftTarget(1.0))(hs, ht, student, teacher, mask)


def copied(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """In place of a divergence: nothing is computed."""
    return student.new_zeros(len(student)), student


class Products(torch.autograd.Function):
    """The products of ours, in its chunks, and a pass that writes something over the logits."""

    @staticmethod
    def forward(ctx, hidden, weight, ht, teacher_weight):
        student = Side(hidden.detach(), weight.detach(), None, 1.0, None)
        teacher = Side(ht, teacher_weight.detach(), None, 1.0, None)
        target = TeacherLogits(teacher, copied)
        work = Work(student, target, None, 0.0, 36 * 2**20, True, True, False, len(weight))
        found = compute(work)
        ctx.gradients = found.hidden, found.weight
        return found.values.sum()

    @staticmethod
    def backward(ctx, outer):
        gradients, ctx.gradients = ctx.gradients, None
        return *(g.mul_(outer) for g in gradients), None, None


def products(hs, ht, student, teacher, mask=None):
    return Products.apply(hs, student.weight, ht, teacher.weight)


ARMS: dict[str, Callable[..., Tensor]] = {
    "naive": naive,
    "naive, logits freed early": frugal,
    "chunks of 256, checkpointed": checkpointed,
    **({"liger, 1 chunk of 1024": liger} if LIGER else {}),
    **({"liger, 4 chunks of 256": partial(liger, chunk_size=256)} if LIGER else {}),
    "ours": ours,
    "ours, 60 % masked": ours,
    "matrix products alone": products,
}
DIFFERENT = ("ours, 60 % masked", "matrix products alone")  # in value from the others


class Loss:
    """The loss alone, from hidden states."""

    def __init__(self, tokens: int = TOKENS):
        generator = torch.Generator().manual_seed(0)
        self.hs = torch.randn(TOKENS, 256, generator=generator)[:tokens].requires_grad_()
        self.ht = torch.randn(TOKENS, 512, generator=generator)[:tokens]
        self.student = nn.Linear(256, VOCABULARY, bias=False)
        self.teacher = nn.Linear(512, VOCABULARY, bias=False).requires_grad_(False)
        self.learned = [self.hs, self.student.weight]

    def few(self) -> None:
        self.hs = self.hs.detach()[:32].requires_grad_()
        self.ht = self.ht[:32]

    def __call__(self, arm: Callable[..., Tensor], mask: Tensor | None) -> Tensor:
        return arm(self.hs, self.ht, self.student, self.teacher, mask)


class Step:
    """Bodies of two GPT-2 models before it."""

    def __init__(self, tokens: int = TOKENS):
        from transformers import GPT2Config, GPT2LMHeadModel

        def model(layers: int, width: int) -> Any:
            return GPT2LMHeadModel(
                GPT2Config(n_layer=layers, n_embd=width, n_head=width // 64, n_positions=256)
            ).eval()  # no dropout: all arms must agree

        self.student_model, self.teacher_model = model(2, 128), model(8, 256)
        self.student, self.teacher = self.student_model.lm_head, self.teacher_model.lm_head
        self.teacher_model.requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(0, VOCABULARY, (4, 256), generator=generator)
        self.learned = list(self.student_model.parameters())

    def __call__(self, arm: Callable[..., Tensor], mask: Tensor | None) -> Tensor:
        with torch.no_grad():
            ht = self.teacher_model.transformer(self.ids).last_hidden_state
        hs = self.student_model.transformer(self.ids).last_hidden_state
        return arm(hs.flatten(0, 1), ht.flatten(0, 1), self.student, self.teacher, mask)


PARTS = {"loss": Loss, "step": Step}


def mask_of(name: str) -> Tensor | None:
    return torch.arange(TOKENS) % 5 < 2 if "masked" in name else None


def run(setting: Any, name: str, mask: Tensor | None) -> Tensor:
    for x in setting.learned:
        x.grad = None
    loss = setting(ARMS[name], mask)
    loss.backward()
    return loss.detach().clone()


def check(setting: Any) -> None:
    expected: list[Tensor] = []
    for name in ARMS:
        if name not in DIFFERENT:
            found = [run(setting, name, None), *(x.grad for x in setting.learned)]
            expected = expected or found
            assert_close(found[0], expected[0], rtol=1e-4, atol=1e-7)
            for a, b in zip(found[1:], expected[1:], strict=True):
                # float32 against float32, at the largest entry of each.
                assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def resident(key: str) -> int:
    return int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def added(part: str, name: str) -> float:
    """Megabytes that one step adds, in this process."""
    setting = PARTS[part]()
    learned = [x for x in setting.learned if x.dim()]
    warm = Loss()
    warm.few()
    run(warm, name, None)
    del warm
    for x in learned:
        x.grad = None
    Path("/proc/self/clear_refs").write_text("5")  # the largest so far is what is there now
    before = resident("VmRSS")
    run(setting, name, mask_of(name))
    return (resident("VmHWM") - before) * 1024 / 1e6


def measure(part: str, rounds: int) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name in ARMS:
        command = [sys.executable, __file__, "--memory", part, name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = {"mb": round(float(done.stdout.strip().splitlines()[-1]), 1)}
    setting = PARTS[part]()
    check(setting)
    times: dict[str, list[float]] = {name: [] for name in ARMS}
    for i in range(rounds):
        names = list(ARMS)
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            mask = mask_of(name)
            start = time.process_time()
            run(setting, name, mask)
            times[name].append(time.process_time() - start)
    for name, seconds in times.items():
        found[name]["ms"] = round(1000 * min(seconds), 1)
    return found


def table(part: str, found: dict[str, dict[str, float]]) -> str:
    base = found["naive"]
    lines = [
        f"| {part} | ms | of naive | MB added | of naive |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| {name} | {row['ms']:.0f} | {row['ms'] / base['ms']:.2f} | {row['mb']:.0f} "
            f"| {row['mb'] / base['mb']:.3f} |"
            for name, row in found.items()
        ),
        "",
    ]
    own = found["ours"]
    for name, (of_time, of_memory) in GOALS.items():
        if name in found and not (part == "step" and name == "matrix products alone"):
            ratio = own["ms"] / found[name]["ms"]
            lines.append(f"time of ours / {name}: {ratio:.3f} (goal {of_time})")
            if of_memory:
                ratio = own["mb"] / found[name]["mb"]
                lines.append(f"memory of ours / {name}: {ratio:.3f} (goal {of_memory})")
    if part == "loss":
        ratio = found["ours, 60 % masked"]["ms"] / own["ms"]
        lines.append(f"time of ours, 60 % masked / ours: {ratio:.3f} (goal 0.5)")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if options.memory:
        print(added(*options.memory))
        return
    if not LIGER:
        print("liger_kernel is not installed, so its arm is left out.\n")
    found = {part: measure(part, options.rounds) for part in PARTS}
    about = {"torch": torch.__version__, "machine": platform.machine(), "rounds": options.rounds}
    path = Path(__file__).parent / "results.json"
    path.write_text(json.dumps({"about": about, **found}, indent=1) + "\n")
    for part, rows in found.items():
        print(table(part, rows), end="\n\n")


if __name__ == "__main__":
    main()
