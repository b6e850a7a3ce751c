"""What each criterion is worth with 100 labels and an unlabelled pool, over paired seeds.

    pip install scikit-learn
    python benchmarks/quality/run.py digits
    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/quality/run.py sst2

Every arm is the label loss and one criterion, as `criteria=[hard_label,NAME]` composes them with
`criteria.hard_label.weight=0.1`, and nothing tuned. Arms of one seed share the labelled rows, the
student's start and the number of steps; `no KD` has the label loss alone, on the labelled rows. The
teacher is trained once on all labels and its answers are kept. `digits` are the 8x8 images that
scikit-learn carries.
"""

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import sys
import warnings
from functools import cache
from itertools import pairwise
from pathlib import Path

import lightning as L
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import ttest_rel
from torch import nn
from torch.utils.data import DataLoader
from transformers import BertConfig, BertModel

import lightning_distill.main  # noqa: F401  registers the resolvers
from lightning_distill import distill, Objective
from lightning_distill.data import TextFiles

HERE = Path(__file__).parent
LABELLED, STEPS, BATCH = 100, {"digits": 600, "sst2": 540}, 64
LOGITS = ["soft_target", "soft_cross_entropy", "logit_mse", "knowledge_distillation", "dkd", "dist"]
LOGITS += ["nkd", "wsld", "logit_standardization", "mlkd", "ofa", "tf_kd", "reverse_kl", "jsd"]
LOGITS += ["skew_kl", "skew_reverse_kl", "total_variation", "taid", "margin_mse", "listwise_kl"]
LOGITS += ["one_versus_all"]
RELATIONS = ["rkd", "similarity_preserving", "pkt", "correlation_congruence", "cka", "crd"]
RELATIONS += ["queue_similarity"]


class Digits(nn.Module):
    """A perceptron; what its last hidden layer says is what relations compare."""

    def __init__(self, *widths: int):
        super().__init__()
        sizes = [64, *widths]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(sizes[-1], 10)

    def forward(self, inputs):
        hidden = self.body(inputs)
        return {"logits": self.head(hidden), "hidden": hidden}


class Sentences(nn.Module):
    """A BERT from scratch, whose hidden layer is the mean over the tokens."""

    def __init__(self, layers: int, width: int, words: int):
        super().__init__()
        config = BertConfig(
            vocab_size=words,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=4 * width,
            max_position_embeddings=64,
        )
        self.body = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(width, 2)

    def forward(self, inputs):
        mask = (inputs != 0).long()
        inputs, mask = (x[:, : int(mask.sum(1).max())] for x in (inputs, mask))
        states = self.body(input_ids=inputs, attention_mask=mask).last_hidden_state
        hidden = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return {"logits": self.head(hidden), "hidden": hidden}


class Bag(nn.Module):
    """The mean of word vectors and one hidden layer: a model for where no transformer fits."""

    def __init__(self, width: int, words: int):
        super().__init__()
        self.words = nn.EmbeddingBag(words, width, padding_idx=0)
        self.body, self.head = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, inputs):
        hidden = self.body(self.words(inputs)).relu()
        return {"logits": self.head(hidden), "hidden": hidden}


class Answers(nn.Module):
    """A teacher's answers to all rows, found by their number."""

    def __init__(self, logits, hidden):
        super().__init__()
        self.register_buffer("logits", logits)
        self.register_buffer("hidden", hidden)

    def forward(self, number):
        return {"logits": self.logits[number], "hidden": self.hidden[number]}


def digits():
    from sklearn.datasets import load_digits

    found = load_digits()
    x, y = torch.tensor(found.data / 16).float(), torch.tensor(found.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order], y[order], len(x) - 360


def sst2():
    folder = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")) / "sst2"
    if not (folder / "train.tsv").is_file():
        sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds sst2/train.tsv.")
    data = TextFiles(
        train=str(folder / "train.tsv"),
        validation=str(folder / "dev.tsv"),
        test=str(folder / "test.tsv"),
        columns=["text", "label"],
        max_length=64,
    )
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    rows = []
    for split in ("train", "test"):
        ids = data.splits[split].student["input_ids"]
        padded = torch.zeros(len(ids), 64, dtype=torch.long)
        for i, row in enumerate(ids):
            padded[i, : len(row)] = torch.tensor(row)
        rows.append((padded, data.splits[split].labels))
    (x, y), (x_test, y_test) = rows
    assert data.tokenizer.pad_token_id == 0
    return torch.cat([x, x_test]), torch.cat([y, y_test]), len(x)


def model(task, words, teacher=False):
    if task == "digits":
        return Digits(256, 256) if teacher else Digits(32)
    return Sentences(3, 128, words) if teacher else Bag(64, words)


def fit(student, teacher, objective, rows, steps, rate):
    loader = DataLoader(rows, batch_size=BATCH, shuffle=True, drop_last=len(rows) > BATCH)
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return distill(
        student,
        teacher,
        loader,
        objective,
        trainer,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=rate),
    )


def rows_of(x, y, chosen):
    return [{"inputs": x[i], "labels": y[i], "number": i, "row": i} for i in chosen]


@torch.no_grad()
def answers(trained, x):
    found = [trained(part) for part in x.split(512)]
    return {key: torch.cat([f[key] for f in found]) for key in ("logits", "hidden")}


def objective_of(name, rows):
    overrides = [f"criteria=[hard_label{',' + name if name else ''}]", "task=classification"]
    overrides.append("criteria.hard_label.weight=0.1")
    with initialize_config_module("lightning_distill.conf", version_base="1.3"):
        cfg = compose("main", [*overrides, "output_dir=out", f"num_rows={rows}"]).criteria
    nodes = OmegaConf.to_container(cfg, resolve=True)
    if name in RELATIONS:
        inputs = nodes[name]["inputs"]
        inputs.update(student="student.hidden", teacher="teacher.hidden")
        inputs.pop("mask", None)
    return Objective({n: instantiate(node, _convert_="object") for n, node in nodes.items()})


@cache
def prepared(task):
    """The task's rows, and the teacher's answers to them; made once by each process."""
    x, y, train = {"digits": digits, "sst2": sst2}[task]()
    L.seed_everything(0, verbose=False)
    words = int(x.max()) + 1
    teacher = model(task, words, teacher=True)
    steps = {"digits": 1500, "sst2": 650}[task]
    fit(teacher, None, objective_of("", train), rows_of(x, y, range(train)), steps, 1e-3)
    return x, y, train, words, answers(teacher, x)


def accuracy(logits, y):
    return 100 * (logits.argmax(-1) == y).float().mean().item()


def run(job):
    task, name, seed = job
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    x, y, train, words, kept = prepared(task)
    if name == "teacher":
        return job, accuracy(kept["logits"][train:], y[train:])
    # Equal shares of the classes, drawn anew for each seed.
    order = torch.randperm(train, generator=torch.Generator().manual_seed(seed))
    classes = int(y.max()) + 1
    labelled = torch.cat([order[y[order] == c][: LABELLED // classes] for c in range(classes)])
    known = torch.full_like(y, -100)
    known[labelled] = y[labelled]
    L.seed_everything(seed, verbose=False)
    student = model(task, words)
    chosen = labelled.tolist() if name == "no KD" else range(train)
    teacher = None if name == "no KD" else Answers(**kept)
    objective = objective_of("" if name == "no KD" else name, train)
    rate = {"digits": 3e-3, "sst2": 1e-3}[task]
    fit(student, teacher, objective, rows_of(x, known, chosen), STEPS[task], rate)
    return job, accuracy(answers(student, x[train:])["logits"], y[train:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["digits", "sst2"])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--only", nargs="*", help="names of criteria, instead of all")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    names = options.only or [*LOGITS, *RELATIONS]
    jobs = [(options.task, "teacher", 0)]
    jobs += [(options.task, n, s) for s in range(options.seeds) for n in ("no KD", *names)]
    found: dict[str, list[float]] = {}
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for (_, name, _), value in track(pool.imap(run, jobs), "training", total=len(jobs)):
            found.setdefault(name, []).append(value)
    table = Table(title=f"{options.task}: test accuracy in %, {options.seeds} seeds")
    for head in ("criterion", "mean", "sd", "gain", "p"):
        table.add_column(head, justify="left" if head == "criterion" else "right")
    alone = found["no KD"]
    order = sorted(found, key=lambda n: -statistics.mean(found[n]))
    lines = []
    for name in order:
        values = found[name]
        cells = [name, f"{statistics.mean(values):.1f}"]
        if name == "teacher":
            cells += ["", "", ""]
        else:
            cells.append(f"{statistics.stdev(values):.1f}")
            gain = statistics.mean(values) - statistics.mean(alone)
            p = ttest_rel(values, alone).pvalue
            cells += ["", ""] if name == "no KD" else [f"{gain:+.1f}", f"{p:.1g}"]
        table.add_row(*cells)
        lines.append("| " + " | ".join(cells) + " |")
    Console().print(table)
    print("\n".join(lines))
    (HERE / f"{options.task}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
