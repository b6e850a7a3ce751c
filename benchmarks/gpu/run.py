"""What the fused loss, a training step and the guard against NaN do on a GPU.

    python benchmarks/gpu/run.py                  # about three minutes on one GPU
    python benchmarks/gpu/run.py --to results.json

Without a GPU it says so and ends. Times are those of CUDA events, the median over rounds in which
all arms take turns; memory is what PyTorch has allocated at the peak of a step above what it held
before.
"""

import argparse
import json
import statistics
import time
import warnings
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import nn, Tensor
from torch.utils.data import DataLoader

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.callbacks import FiniteLoss
from lightning_distill.criteria import FusedLinearDivergence, HardLabel, Hint, SoftTarget
from lightning_distill.criteria._fused_linear import compute, Side, TeacherLogits, Work

QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "gpu",
    "devices": 1,
}


# The loss of language models: hidden states of 4096 tokens, a vocabulary of 128,256, in bfloat16.
TOKENS, VOCABULARY, STUDENT, TEACHER = 4096, 128_256, 2048, 4096


def naive(hs: Tensor, ht: Tensor, student: nn.Linear, teacher: nn.Linear) -> Tensor:
    with torch.no_grad():
        target = teacher(ht).float().log_softmax(-1)
    log_q = student(hs).float().log_softmax(-1)
    return F.kl_div(log_q, target, reduction="batchmean", log_target=True)


def ours(hs: Tensor, ht: Tensor, student: nn.Linear, teacher: nn.Linear) -> Tensor:
    return FusedLinearDivergence(SoftTarget(1.0))(hs, ht, student, teacher, None)


class Products(torch.autograd.Function):
    """The products of ours in its chunks, with nothing between them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, ht: Tensor, teacher: Tensor) -> Tensor:
        sides = Side(hidden.detach(), weight.detach(), None, 1.0, None)
        target = TeacherLogits(
            Side(ht, teacher.detach(), None, 1.0, None), lambda s, t: (s.new_zeros(len(s)), s)
        )
        chunk = 2**29
        found = compute(Work(sides, target, None, 0.0, chunk, True, True, False, len(weight)))
        ctx.gradients = found.hidden, found.weight
        return found.values.sum()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Any, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        return *(g.mul_(outer).to(torch.bfloat16) for g in gradients), None, None


def products(hs: Tensor, ht: Tensor, student: nn.Linear, teacher: nn.Linear) -> Tensor:
    return Products.apply(hs, student.weight, ht, teacher.weight)


def fused_loss(rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    make = {"device": "cuda", "dtype": torch.bfloat16}
    hs = torch.randn(TOKENS, STUDENT, **make).requires_grad_()
    ht = torch.randn(TOKENS, TEACHER, **make)
    student = nn.Linear(STUDENT, VOCABULARY, bias=False, **make)
    teacher = nn.Linear(TEACHER, VOCABULARY, bias=False, **make).requires_grad_(False)
    arms = {"naive": naive, "ours": ours, "products alone": products}
    times: dict[str, list[float]] = {name: [] for name in arms}
    memory, values, gradients = {}, {}, {}
    for i in range(rounds + 1):
        for name, arm in arms.items():
            hs.grad = student.weight.grad = None
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            loss = arm(hs, ht, student, teacher)
            loss.backward()
            end.record()
            torch.cuda.synchronize()
            memory[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
            values[name], gradients[name] = loss.item(), hs.grad.float().clone()
            if i:
                times[name].append(start.elapsed_time(end))
    scale = gradients["naive"].abs().max()
    operations = 2 * TOKENS * VOCABULARY * (3 * STUDENT + TEACHER)
    found = {
        name: {
            "ms": statistics.median(times[name]),
            "MiB": memory[name],
            "TFLOP/s": operations / statistics.median(times[name]) / 1e9,
        }
        for name in arms
    }
    return {
        **found,
        "value": {name: values[name] for name in ("naive", "ours")},
        "largest difference of the gradient, as a share": float(
            (gradients["ours"] - gradients["naive"]).abs().max() / scale
        ),
    }


# A training step of a tiny model, where what it costs beside the models can be seen.
class Net(nn.Module):
    def __init__(self, width: int, layers: int):
        super().__init__()
        blocks = [nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(layers)]
        self.first = nn.Linear(64, width)
        self.layers = nn.ModuleList(blocks)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def objective() -> Objective:
    layers = {"student": "student.layer:layers.*", "teacher": "teacher.layer:layers.*"}
    return Objective(
        {
            "hard_label": Term(
                HardLabel(), {"student": "student.logits", "labels": "batch.labels"}
            ),
            "soft_target": Term(
                SoftTarget(), {"student": "student.logits", "teacher": "teacher.logits"}
            ),
            "hint": Term(Hint(), layers, adapter="linear"),
        }
    )


def batches(count: int, rows: int = 256) -> list[tuple[Tensor, Tensor]]:
    numbers = torch.Generator().manual_seed(0)
    return [
        (torch.randn(rows, 64, generator=numbers), torch.randint(0, 10, (rows,), generator=numbers))
        for _ in range(count)
    ]


def module() -> DistillationModule:
    torch.manual_seed(0)
    return DistillationModule(Net(128, 4), Net(256, 8), objective())


class Clock(L.Callback):
    """Milliseconds a step from the 20th step on, and how often a step waits for the GPU."""

    def __init__(self, count_waits: bool = False):
        self.count_waits, self.waits, self.caught = count_waits, 0, None

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 20:
            torch.cuda.synchronize()
            self.start = time.perf_counter()
            if self.count_waits:
                self.caught = warnings.catch_warnings(record=True)
                self.log = self.caught.__enter__()
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.last = args[-1]

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")
        if self.caught is not None:
            self.caught.__exit__(None, None, None)
            self.waits = sum("synchroniz" in str(w.message) for w in self.log) / (self.last - 19)
        torch.cuda.synchronize()
        self.ms = 1000 * (time.perf_counter() - self.start) / (self.last - 19)


def fitted(steps: int, callbacks: list[Any], count_waits: bool = False) -> Clock:
    clock = Clock(count_waits)
    loader = DataLoader(batches(steps), batch_size=None, pin_memory=True)
    L.Trainer(max_epochs=1, callbacks=[*callbacks, clock], **QUIET).fit(module(), loader)
    return clock


def bare(steps: int) -> float:
    made = module()
    student, teacher = made.student.cuda(), made.teacher.cuda()
    pairs = [(0, 1), (1, 3), (2, 5), (3, 7)]
    adapters = nn.ModuleList(nn.Linear(128, 256) for _ in pairs).cuda()
    parameters = [*student.parameters(), *adapters.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    hidden: dict[str, list[Tensor]] = {"student": [], "teacher": []}
    for name, model in (("student", student), ("teacher", teacher)):
        for layer in model.layers:
            layer.register_forward_hook(lambda m, a, out, n=name: hidden[n].append(out))
    for i, (x, y) in enumerate(DataLoader(batches(steps), batch_size=None, pin_memory=True)):
        if i == 20:
            torch.cuda.synchronize()
            start = time.perf_counter()
        x, y = x.cuda(non_blocking=True), y.cuda(non_blocking=True)
        for found in hidden.values():
            found.clear()
        with torch.no_grad():
            target = teacher(x)
        logits = student(x)
        loss = F.cross_entropy(logits, y) + 16 * F.kl_div(
            (logits / 4).log_softmax(-1), (target / 4).softmax(-1), reduction="batchmean"
        )
        terms = [
            F.mse_loss(adapter(hidden["student"][s]), hidden["teacher"][t])
            for adapter, (s, t) in zip(adapters, pairs, strict=True)
        ]
        loss = loss + torch.stack(terms).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / (steps - 20)


def step(rounds: int, steps: int = 320) -> dict[str, Any]:
    times: dict[str, list[float]] = {"bare loop": [], "ours": [], "ours, FiniteLoss": []}
    for i in range(rounds + 1):
        found = {
            "bare loop": bare(steps),
            "ours": fitted(steps, []).ms,
            "ours, FiniteLoss": fitted(steps, [FiniteLoss()]).ms,
        }
        for name, ms in found.items():
            if i:
                times[name].append(ms)
    waits = fitted(steps, [FiniteLoss()], count_waits=True).waits
    return {**{n: statistics.median(ms) for n, ms in times.items()}, "waits a step": waits}


def accumulation() -> float:
    """The largest difference in a weight after one step: three batches of unequal size, and one."""
    torch.manual_seed(1)
    x, y = torch.randn(60, 64), torch.randint(0, 10, (60,))
    y[5:25] = -100
    found = []
    for sizes in ([60], [8, 30, 22]):
        made = module()
        made.optimizer = lambda groups: torch.optim.SGD(groups, lr=0.1)
        loader = DataLoader(list(zip(x.split(sizes), y.split(sizes), strict=True)), batch_size=None)
        options = QUIET | {"accumulate_grad_batches": len(sizes), "max_epochs": 1}
        L.Trainer(**options).fit(made, loader)
        found.append(torch.cat([p.detach().cpu().flatten() for p in made.student.parameters()]))
    return float((found[0] - found[1]).abs().max())


def not_a_number() -> str:
    """What a run says of which the fourth batch is NaN."""
    data = batches(14, 8)
    data[3] = (data[3][0] * float("nan"), data[3][1])
    try:
        L.Trainer(max_epochs=1, callbacks=[FiniteLoss()], **QUIET).fit(
            module(), DataLoader(data, batch_size=None)
        )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--to", help="where the figures are written, as JSON")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("No GPU is here: nothing was measured.")
        return
    found: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    parts = {
        "fused loss": lambda: fused_loss(options.rounds),
        "step, ms": lambda: step(min(options.rounds, 5)),
        "accumulation, largest difference": accumulation,
        "NaN in the fourth batch": not_a_number,
    }
    for name, part in parts.items():
        found[name] = part()
        print(name, json.dumps(found[name], indent=2), flush=True)
    if options.to:
        with open(options.to, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()
