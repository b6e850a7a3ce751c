"""What a small language model learns by different losses from the same teacher.

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/lm_quality/run.py

One teacher for each corpus; for each seed the students of all losses begin with the same weights
and see the same batches in the same order. Losses that read few numbers of the teacher are given
what a cache would keep: the draws for a row are the same in every epoch.
"""

import argparse
import copy
import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from scipy import stats
from torch import nn, Tensor

from lightning_distill.cache import Sampled, TopK
from lightning_distill.criteria import (
    FusedLinearCrossEntropy,
    FusedLinearDivergence,
    FusedLinearSampled,
    FusedLinearTopK,
    JSD,
    ReverseKL,
    soft_target,
    SoftTarget,
)
from lightning_distill.data import TextCorpus
from lightning_distill.metrics import ForwardKL, Perplexity
from lightning_distill.students import from_config

K, DRAWS = 4, 12
# Characters to test on at most, some 70,000 tokens.
TESTED = 200_000
HERE = Path(__file__).parent
CORPORA = {
    "tiny-shakespeare": ("tinyshakespeare/input.txt", None),
    "WikiText-2": ("wikitext2/valid.txt", "wikitext2/test.txt"),
}


def corpus(folder: Path, name: str, scratch: Path, options: Any) -> TextCorpus:
    """Rows of a corpus; of a single file the last tenth is for testing."""
    train, test = CORPORA[name]
    text = (folder / train).read_text()
    if test is None:
        cut = text.index("\n\n", len(text) * 9 // 10)
        text, held = text[:cut], text[cut:]
    else:
        held = (folder / test).read_text()
    (scratch / "train.txt").write_text(text[: options.characters])
    (scratch / "test.txt").write_text(held[: min(options.characters // 5, TESTED)])
    data = TextCorpus(
        train=str(scratch / "train.txt"),
        validation=str(scratch / "test.txt"),
        test=str(scratch / "test.txt"),
        vocab_size=options.vocabulary,
        max_length=128,
        batch_size=16,
    )
    data.setup()
    return data


def model(data: TextCorpus, width: int, layers: int, seed: int) -> Any:
    return from_config(
        "llama",
        vocab_size=len(data.tokenizer),
        task="language_modelling",
        eos_token_id=data.tokenizer.eos_token_id,
        pad_token_id=data.tokenizer.pad_token_id,
        seed=seed,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=width // 4,
        intermediate_size=width * 8 // 3,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )


def hidden_states(model: Any, batch: dict[str, Tensor]) -> Tensor:
    inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"]}
    return model.model(**inputs, use_cache=False).last_hidden_state


def losses() -> dict[str, nn.Module | None]:
    return {
        "cross-entropy": FusedLinearCrossEntropy(),
        "forward KL": FusedLinearDivergence(SoftTarget(temperature=1.0)),
        "reverse KL": FusedLinearDivergence(ReverseKL()),
        "JSD": FusedLinearDivergence(JSD()),
        "top-4, renormalised": None,
        "top-4 and tail": FusedLinearTopK(K),
        "sampled-12": FusedLinearSampled(DRAWS),
    }


def loss_of(
    name: str, criterion: Any, student: Any, batch: dict[str, Tensor], of_teacher: dict[str, Any]
) -> Tensor:
    """What one student learns from a batch, as the mean over its tokens in nats."""
    states, labels = hidden_states(student, batch), batch["labels"]
    head = student.lm_head
    if name == "cross-entropy":
        return criterion(states, student_head=head, labels=labels)
    if name == "top-4, renormalised":
        counted = labels != -100
        logits = head(states)[counted]
        top, classes = of_teacher["logits"][counted].topk(K)
        p = torch.full_like(logits, -math.inf).scatter(-1, classes, top)
        return soft_target(logits, p, temperature=1.0).mean()
    if name in ("top-4 and tail", "sampled-12"):
        return criterion(states, of_teacher[name], student_head=head, labels=labels)
    return criterion(states, of_teacher["hidden"], head, of_teacher["head"], labels=labels)


def answers(teacher: Any, batch: dict[str, Tensor]) -> dict[str, Any]:
    with torch.no_grad():
        hidden = hidden_states(teacher, batch)
        logits = teacher.lm_head(hidden)
    ids = torch.stack([batch["row"], torch.zeros_like(batch["row"])], dim=1)
    found: dict[str, Any] = {"hidden": hidden, "logits": logits, "head": teacher.lm_head}
    for name, encoding in (("top-4 and tail", TopK(K)), ("sampled-12", Sampled(DRAWS))):
        found[name] = {**encoding.encode(logits, ids), **encoding.settings()}
        found[name]["vocabulary"] = logits.shape[-1]
    return found


def optimizer(model: Any, steps: int, rate: float) -> tuple[Any, Any]:
    adam = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=steps, pct_start=0.1)
    return adam, schedule


def step(model: Any, loss: Tensor, adam: Any, schedule: Any) -> None:
    adam.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    schedule.step()


def train(
    data: TextCorpus, models: dict[str, Any], epochs: int, rate: float, what: str, teacher: Any
) -> None:
    """Train models side by side, each by the loss of its name."""
    criteria = losses()
    loader = data.train_dataloader()
    steps = epochs * len(loader)
    optimizers = {name: optimizer(m, steps, rate) for name, m in models.items()}
    batches = (batch for epoch in range(epochs) for batch in epoch_of(loader, epoch))
    for batch in track(batches, what, total=steps, transient=True):
        of_teacher = {} if teacher is None else answers(teacher, batch)
        for name, student in models.items():
            loss = loss_of(name, criteria[name], student, batch, of_teacher)
            step(student, loss, *optimizers[name])


def epoch_of(loader: Any, epoch: int) -> Any:
    for sampler in (loader.sampler, loader.batch_sampler):
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
    return loader


@torch.no_grad()
def measured(data: TextCorpus, student: Any, teacher: Any) -> dict[str, float]:
    """Perplexity on the test text, nats to the teacher, and how often both say the same."""
    perplexity, kl = Perplexity(), ForwardKL()
    equal = total = 0
    for batch in data.test_dataloader():
        counted = (batch["labels"] != -100) & (batch["row"] >= 0)[:, None]
        labels = batch["labels"][counted]
        ours = student.lm_head(hidden_states(student, batch)[counted])
        theirs = teacher.lm_head(hidden_states(teacher, batch)[counted])
        perplexity.update(ours, labels)
        kl.update(ours, theirs)
        equal += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        total += len(labels)
    return {
        "perplexity": float(perplexity.compute()),
        "KL to the teacher": float(kl.compute()),
        "agreement": equal / total,
    }


def summary(results: dict[str, Any]) -> str:
    """The tables of README.md."""
    lines = []
    for name, found in results["corpora"].items():
        teacher = found["teacher"]["perplexity"]
        lines += [
            f"### {name}",
            "",
            f"{found['tokens']:,} tokens to learn from, a vocabulary of {found['vocabulary']:,}; "
            f"the teacher has {found['parameters'][0]:,} parameters and perplexity {teacher:.2f}, "
            f"the students have {found['parameters'][1]:,}.",
            "",
            "| loss | perplexity | nats to the teacher | agreement in % |",
            "|---|---|---|---|",
        ]
        for loss in losses():
            cells = [loss]
            for metric, factor in (("perplexity", 1), ("KL to the teacher", 1), ("agreement", 100)):
                values = [factor * seed[loss][metric] for seed in found["seeds"].values()]
                spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
                cells.append(f"{np.mean(values):.3f}{spread}")
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
        pairs = (
            ("sampled-12", "top-4, renormalised"),
            ("top-4 and tail", "top-4, renormalised"),
            ("forward KL", "cross-entropy"),
        )
        for better, worse in pairs:
            a, b = (
                [math.log(seed[loss]["perplexity"]) for seed in found["seeds"].values()]
                for loss in (better, worse)
            )
            if len(a) > 1:
                p, off = stats.ttest_rel(a, b).pvalue, np.mean(np.subtract(a, b))
                lines.append(
                    f"- {better} against {worse}: {off:+.4f} nats per token, "
                    f"paired t-test p = {p:.1g}."
                )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA), choices=list(CORPORA))
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--teacher-epochs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--characters", type=int, default=10**9, help="of a corpus at most")
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    root = os.environ.get("LIGHTNING_DISTILL_DATA")
    if root is None:
        raise SystemExit(
            "Set LIGHTNING_DISTILL_DATA to the folder that holds tinyshakespeare/ and wikitext2/."
        )
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "torch": torch.__version__,
        "options": {k: v for k, v in vars(options).items() if k != "results"},
        "corpora": {},
    }
    if options.results.is_file():
        # Corpora may be run one by one.
        results["corpora"] = json.loads(options.results.read_text())["corpora"]
    for name in options.corpora:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            data = corpus(Path(root), name, Path(scratch), options)
        teacher = model(data, 128, 4, seed=0)
        train(data, {"cross-entropy": teacher}, options.teacher_epochs, 3e-3, "teacher", None)
        teacher.eval()
        found = {
            "tokens": data.counts()["train tokens"],
            "vocabulary": len(data.tokenizer),
            "teacher": measured(data, teacher, teacher),
            "seeds": {},
        }
        for seed in range(1, options.seeds + 1):
            first = model(data, 64, 2, seed)
            students = {loss: copy.deepcopy(first) for loss in losses()}
            rows = data.replace(seed=seed)
            train(rows, students, options.epochs, 3e-3, f"{name}, seed {seed}", teacher)
            found["seeds"][str(seed)] = {
                loss: measured(data, student.eval(), teacher) for loss, student in students.items()
            }
        found["parameters"] = [sum(p.numel() for p in m.parameters()) for m in (teacher, first)]
        found["seconds"] = time.perf_counter() - start
        results["corpora"][name] = found
        results["corpora"] = {n: results["corpora"][n] for n in CORPORA if n in results["corpora"]}
        options.results.write_text(json.dumps(results, indent=2))
        print(summary({"corpora": {name: found}}))


if __name__ == "__main__":
    main()
