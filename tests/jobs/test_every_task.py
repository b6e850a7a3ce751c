"""Every job with every task, as the installed command runs it in a folder of files."""

import csv
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import run_on_two_ranks, run_program
from safetensors.torch import load_file
from speech import whisper, write_table

from lightning_distill.report import Predictions

pytestmark = pytest.mark.slow

# Neither fills its last batch, and two processes get unlike shares of it.
ROWS = {"train": 19, "dev": 7}
WORDS = ["fine", "poor", "long", "loud", "rome", "oslo", "paris", "red", "blue", "old", "new"]
SMALL = [
    *("trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"),
    *("callbacks=[best_checkpoint,last_checkpoint,finite_loss]", "data.eval_batch_size=4"),
    # Adam would make a difference in the last digit a whole step.
    *("optimizer._target_=torch.optim.SGD", "~optimizer.betas", "~optimizer.eps"),
    *("~optimizer.fused", "optimizer.lr=0.05"),
]
DDP = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]


@dataclass(frozen=True)
class Kind:
    """Files of one task, and how the command is told of them.

    Args:
        row: what a row of the file is, by its number and a source of random numbers.
        data: options of the data.
        student: a fresh model.
        teacher: one that is trained on the spot.
        write: writes the files, where they are no jsonl.
        deeper: the fresh model with two layers, of which a student is cut.
        cut: what is left of it.
        more: further options of the data and the run.
    """

    row: Callable[[int, random.Random], object] | None = None
    data: tuple[str, ...] = ("data.train=train.jsonl", "data.validation=dev.jsonl")
    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    write: Callable[[Path], None] | None = None
    deeper: tuple[str, ...] = ("student.num_hidden_layers=2",)
    cut: tuple[str, ...] = ("student.layers=1",)
    more: tuple[str, ...] = ()


def sized(*sizes: str, student: str | None = None, teacher: str | None = None) -> dict:
    """Both models of these sizes."""
    chosen = ([f"student={student}"], [f"teacher={teacher}"]) if student else ([], [])
    of_student = [f"++student.{size}" for size in sizes]
    of_teacher = [f"++teacher.model.{size}" for size in sizes]
    trained = (*chosen[1], *of_teacher, "teacher.max_epochs=1")
    return {"student": (*chosen[0], *of_student), "teacher": trained}


BERT = sized(
    *("hidden_size=16", "num_attention_heads=2", "intermediate_size=16"),
    *("num_hidden_layers=1", "hidden_dropout_prob=0.0", "attention_probs_dropout_prob=0.0"),
)
LLAMA = sized(
    *("hidden_size=16", "num_attention_heads=2", "num_key_value_heads=2", "head_dim=8"),
    *("intermediate_size=16", "num_hidden_layers=1"),
    student="causal_lm",
    teacher="trained_causal_lm",
)
T5 = sized(
    *("hidden_size=16", "num_attention_heads=2", "head_dim=8", "d_ff=16", "dropout_rate=0.0"),
    *("num_layers=1", "num_decoder_layers=1"),
    student="sequence_to_sequence",
    teacher="trained_sequence_to_sequence",
)
VIT = sized(
    *("hidden_size=8", "num_attention_heads=2", "intermediate_size=8", "num_hidden_layers=1"),
    *("hidden_dropout_prob=0.0", "attention_probs_dropout_prob=0.0"),
    student="vit",
    teacher="trained_vit",
)
TXT = ("data.train=train.txt", "data.validation=dev.txt", "data.document=line")


def words(draw: random.Random, least: int = 2, most: int = 9) -> list[str]:
    return [draw.choice(WORDS) for _ in range(draw.randint(least, most))]


def text(draw: random.Random) -> str:
    return " ".join(words(draw))


def tagged(number: int, draw: random.Random) -> dict:
    own = words(draw)
    places = ["B-place" if w in ("rome", "oslo", "paris") else "O" for w in own]
    # Every fifth row has no label as a whole.
    intent = None if number % 5 == 4 else ["go", "stay", "look"][number % 3]
    return {"words": own, "tags": places, "intent": intent}


def question(number: int, draw: random.Random) -> dict:
    context = words(draw, 12, 20)
    answer = " ".join(context[number % 10 : number % 10 + 2])
    start = len(" ".join(context[: number % 10])) + (number % 10 > 0)
    answers = {"text": [answer], "answer_start": [start]}
    return {"id": str(number), "question": f"what is {answer}", "context": " ".join(context),
            "answers": answers}  # fmt: skip


def texts(folder: Path) -> None:
    for name, count in ROWS.items():
        draw = random.Random(name)
        lines = [" ".join(words(draw, 9, 9)) for _ in range(count)]
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def pictures(folder: Path) -> None:
    for name, count in ROWS.items():
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 255, (8, 8, 3)).astype(np.uint8)
            path = folder / {"dev": "val"}.get(name, name) / f"kind{i % 3}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def sounds(folder: Path) -> None:
    whisper(folder / "whisper", dropout=0.0)
    for name, count in ROWS.items():
        write_table(folder, name, count, seed=len(name))


KINDS = {
    "classification": Kind(
        lambda i, draw: {"text": text(draw), "label": ["good", "bad", "so"][i % 3]}, **BERT
    ),
    "multi_label": Kind(
        lambda i, draw: {"text": text(draw), "label": WORDS[i % 3 : i % 3 + 2]}, **BERT
    ),
    "regression": Kind(lambda i, draw: {"text": text(draw), "label": i * 0.7 % 3}, **BERT),
    # With two heads; jobs with that of words alone are in `test_token_classification`.
    "token_classification": Kind(tagged, more=("data.row_label=intent",), **BERT),
    "question_answering": Kind(
        question, more=("data.max_length=24", "data.stride=6", "optimizer.lr=0.01"), **BERT
    ),
    "masked_language_modelling": Kind(
        write=texts,
        data=("data=masked_corpus", *TXT, "data.max_length=10", "data.views=1"),
        # At a temperature of 4 the KL of a float32 is multiplied by 16, and its last digits too.
        more=("data.vocab_size=270", "criteria.soft_target.criterion.temperature=1"),
        **BERT,
    ),
    "language_modelling": Kind(
        write=texts,
        data=("data=text_corpus", *TXT, "data.max_length=16"),
        more=("data.vocab_size=300", "metrics=[perplexity,agreement]"),
        **LLAMA,
    ),
    "sequence_to_sequence": Kind(
        lambda i, draw: {"source": text(draw), "target": text(draw)},
        deeper=("student.num_layers=2",),
        more=("data.vocab_size=270", "metrics=[perplexity,agreement]"),
        **T5,
    ),
    # One encoder for both models.
    "speech": Kind(
        write=sounds,
        student=("student=pretrained", "student.path=whisper"),
        teacher=("teacher=pretrained", "teacher.path=whisper"),
        deeper=(),
        cut=("student.layers={encoder: 2, decoder: 1}", "student.freeze=[encoder]"),
        more=("criteria=[hard_label,soft_target]", "metrics=[perplexity,agreement]"),
    ),
    "embedding": Kind(
        lambda i, draw: {"text": text(draw), "text_pair": text(draw), "score": i % 6 / 5},
        data=("data=embedding_files", *Kind.data, "data.text_pair=text_pair"),
        **BERT,
    ),
    "ranking": Kind(
        lambda i, draw: {"query": text(draw), "docs": [text(draw) for _ in range(2 + i % 3)]},
        data=("data=embedding_files", *Kind.data, "data.text=query", "data.text_pair=docs"),
        more=("data.task=ranking",),
        **BERT,
    ),
    "pictures": Kind(
        write=pictures, data=("data=image_folder", "data.folder=."), more=("data.size=8",), **VIT
    ),
}


ONE_BY_ONE = """
import json
import sys

from lightning_distill.main import main

for typed in json.load(open(sys.argv[1])):
    sys.argv = ["lightning-distill", *typed]
    print(*sys.argv, flush=True)
    main()
"""


class Runs:
    """A folder in which the installed command runs."""

    def __init__(self, folder: Path, installed: Path, kind: Kind):
        self.folder, self.kind, self.installed = folder, kind, installed
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(installed),
            "OMP_NUM_THREADS": "1",
            "LIGHTNING_DISTILL_CACHE": str(folder / "cache"),
            "COLUMNS": "200",
        }

    def on_files(self, name: str, *typed: str) -> list[str]:
        """A command about the files, whose run is called so."""
        # What is typed last counts.
        known = ["data.batch_size=8", *SMALL, *self.kind.data, *self.kind.more, *typed]
        return [*{word.partition("=")[0].lstrip("+"): word for word in known}.values(), of(name)]

    def all(self, *commands: list[str]) -> None:
        """Several commands, in a process that imports the package once."""
        program, file = self.folder / "all.py", self.folder / "commands.json"
        program.write_text(ONE_BY_ONE)
        file.write_text(json.dumps(commands))
        done = run_program(program, [str(file)], self.folder, self.environment)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"

    def on_two_ranks(self, command: list[str]) -> None:
        program = self.installed / "bin" / "lightning-distill"
        for done in run_on_two_ranks(program, command, self.folder, self.environment):
            assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def of(name: str) -> str:
    return f"hydra.run.dir={name}"


@pytest.fixture
def runs(tmp_path, installed, request) -> Runs:
    kind = KINDS[request.param]
    if kind.write is not None:
        kind.write(tmp_path)
    if kind.row is not None:
        for name, count in ROWS.items():
            draw = random.Random(name)
            rows = [json.dumps(kind.row(i, draw)) + "\n" for i in range(count)]
            (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    return Runs(tmp_path, installed, kind)


def steps(run: Path) -> dict[str, list[float]]:
    """All columns of training, step by step."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith("train/")]
    return {name: [float(row[name]) for row in rows if row[name]] for name in names}


def report(run: Path) -> dict:
    return json.loads((run / "report.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of all files of a model's folder, such as those of a second head."""
    files = sorted(folder.rglob("model.safetensors"))
    return {f"{f.relative_to(folder)}:{n}": t for f in files for n, t in load_file(f).items()}


def same_run(found: Path, expected: Path) -> None:
    for name, values in steps(expected).items():
        assert steps(found)[name] == pytest.approx(values, abs=1e-6, rel=1e-6), name
    ours, theirs = (weights(run / "student") for run in (found, expected))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0.0, atol=1e-6, msg=name)
    ours, theirs = (Predictions.load(run) for run in (found, expected))
    assert (ours is None) is (theirs is None)
    if ours is not None and theirs is not None:
        # Whichever process had a row.
        assert ours.is_of_same_rows(theirs) and ours.classes == theirs.classes
        assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-5)
    ours, theirs = (report(run)["student"] for run in (found, expected))
    assert ours["metrics"] == pytest.approx(theirs["metrics"], abs=1e-6, rel=1e-4)
    assert ours["intervals"].keys() == theirs["intervals"].keys()
    for name, ends in theirs["intervals"].items():
        assert ours["intervals"][name] == pytest.approx(ends, abs=1e-5, rel=1e-3), name


EXPORT = ["job=export", "job.formats=[safetensors,onnx,torch_export]", "job.quantization=int8"]
EXPORTED = [
    (name, numbers)
    for names in (
        ("model.safetensors", "int8/model.safetensors"),
        ("model.onnx", "model.int8.onnx"),
        ("model.pt2", "model.int8.pt2"),
    )
    for name, numbers in zip(names, ("float32", "int8"), strict=True)
]


@pytest.mark.parametrize("runs", KINDS, indirect=True)
def test_every_job(runs):
    kind, folder = runs.kind, runs.folder
    models = ["teacher.path=tuned/student", "student=from_teacher", *kind.cut, "baseline=false"]
    live = ["teacher=pretrained", *models]
    runs.all(
        runs.on_files("tuned", "job=finetune", *kind.student, *kind.deeper),
        runs.on_files("distilled", *kind.student, *kind.teacher),
        ["job=evaluate", "job.path=distilled", of("evaluated")],
        [*EXPORT, "job.run=distilled", "job.to=out", of("exported")],
        ["job=inspect", "job.run=distilled", of("inspected")],
        runs.on_files("live", *live),
        runs.on_files("answers", "job=cache", "job.folder=kept", *live),
        runs.on_files("cached", "teacher=cached", "teacher.folder=kept", *models),
        runs.on_files("caching", "teacher=caching", *models),
    )
    runs.on_two_ranks(runs.on_files("two", *live, *DDP, "data.batch_size=4"))

    metric = report(folder / "tuned")["metric"]
    found = {
        name: report(folder / "distilled")[name] for name in ("student", "baseline", "teacher")
    }
    assert all(metric in model["metrics"] for model in found.values())
    # Where nothing is right, no draw differs from another.
    for model in (model for model in found.values() if model["metrics"][metric]):
        low, high = model["intervals"][metric]
        assert low <= model["metrics"][metric] <= high
    if "hidden_size=16" in " ".join(kind.student):
        layers = json.loads((folder / "distilled" / "layer_similarity.json").read_text())
        assert all(name.startswith("trained ") for name in layers)
    of_job = json.loads((folder / "evaluated" / "evaluation.json").read_text())
    assert of_job[metric] == pytest.approx(found["student"]["metrics"][metric], rel=1e-4)
    ours, theirs = map(weights, (folder / "distilled" / "student", folder / "out"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    exported = json.loads((folder / "out" / "export.json").read_text())["files"]
    assert [(file["file"], file["numbers"]) for file in exported] == EXPORTED
    for file in exported:
        # In integers no bound holds for random weights; all else is what the limits of docs say.
        assert file["difference"] < 1e-4 or file["numbers"] == "int8", file
        assert file["latency_ms"] > 0 and file["size_mb"] > 0
    assert json.loads((folder / "inspected" / "layers.json").read_text())["student"]

    # One loss, wherever the answers come from and however many processes there are.
    expected = steps(folder / "live")
    assert len(expected["train/loss"]) >= 2 and len(expected) >= 3
    for name in ("cached", "caching", "two"):
        same_run(folder / name, folder / "live")
