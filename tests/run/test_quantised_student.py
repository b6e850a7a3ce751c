"""A student that learns with rounded weights, by the command: trained, resumed and exported."""

import json
from pathlib import Path

import pytest
import torch
from texts_on_disk import call_in, write_csv
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lightning_distill.run.card_of_run import forget_files

pytest.importorskip("torchao", reason="pip install 'lightning-distill[quantization]'")
pytestmark = pytest.mark.slow

OPTIONS = ["data=text_files", "data.train=tr.csv", "data.test=te.csv", "data.label=kind"]
OPTIONS += ["data.max_length=9", "data.batch_size=16", "baseline=false", "optimizer.lr=1e-3"]
OPTIONS += ["trainer.accelerator=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=1"]
OPTIONS += ["callbacks=[best_checkpoint,last_checkpoint,finite_loss]"]
ITSELF = ["student=pretrained", "student.path=model"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_csv(folder, "model", 2, initializer_range=0.2)
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    with torch.no_grad():
        # As one that was trained: scales of norms that are all 1 belong to fresh weights.
        for weight in model.parameters():
            weight.add_(1e-3 * torch.randn_like(weight))
    model.save_pretrained(folder / "model")
    return folder


@pytest.fixture
def call(folder, capsys):
    def run(name: str, *arguments: str) -> tuple[Path, str]:
        call_in(folder, *arguments, f"hydra.run.dir={name}")
        said = capsys.readouterr()
        return folder / name, said.out + said.err

    return run


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def exported(folder: Path) -> dict[str, dict]:
    return {f["file"]: f for f in json.loads((folder / "export.json").read_text())["files"]}


def test_it_learns_from_itself_and_is_written_in_integers(call, folder):
    run, said = call("own", *OPTIONS, *ITSELF, "student.quantization=int4")
    assert "Teacher: the student before it is quantised: teacher=unquantised" in said
    assert "weights are rounded to 4 bits" in said
    # What dropout changes of its answers is many times what rounding does.
    assert "dropout is off; student.dropout=true keeps it" in said
    written = json.loads((run / "student" / "config.json").read_text())
    assert written["hidden_dropout_prob"] == 0.0
    report = json.loads((run / "report.json").read_text())
    # As it is used: a byte for each weight of a linear layer.
    assert report["student"]["size_mb"] < 0.6 * report["teacher"]["size_mb"]
    assert report["student"]["parameters"] == report["teacher"]["parameters"]
    _, said = call("exported", "job=export", f"job.run={run}")
    files = exported(run / "export")
    assert [*files] == ["model.safetensors", "int4/model.safetensors"]
    for name, file in files.items():
        assert file["difference"] < 1e-5 and f"{name} from best" in said
    small = files["int4/model.safetensors"]
    assert small["size_mb"] < 0.7 * files["model.safetensors"]["size_mb"]
    assert small["latency_ms"] > 0 and small["same_predictions"] == 1
    # transformers loads both, and they answer alike but for the inputs that one of them rounds.
    tokens = AutoTokenizer.from_pretrained(run / "export" / "int4")(
        "a long film", return_tensors="pt"
    )
    with torch.no_grad():
        plain, real = (
            AutoModelForSequenceClassification.from_pretrained(path).eval()(**tokens).logits
            for path in (run / "student", run / "export" / "int4")
        )
    assert 0 < (plain - real).abs().max() < 0.1
    card = (run / "export" / "README.md").read_text()
    assert "`int4/model.safetensors` needs the package torchao." in card
    # Of this export nothing is taken for a file of a later one.
    forget_files(run / "export")
    assert not (run / "export" / "int4").exists()
    with pytest.raises(SystemExit):
        call("other", "job=export", f"job.run={run}", "job.quantization=int8")
    words = "was trained for int4, and job.quantization is int8. Leave that out"
    assert words in (folder / "other" / "error.txt").read_text()


CUT = ["teacher=pretrained", "teacher.path=model", "student=from_teacher", "student.layers=1"]


def test_dropout_is_as_it_is_said_and_with_labels_alone_as_ever(call):
    for name, words, expected in (
        ("kept", ["student.quantization=int4", "student.dropout=true"], 0.1),
        ("labels", ["job=finetune", "student.quantization=int4"], 0.1),
        # A teacher may be there for its weights alone.
        ("cut", ["job=finetune", *CUT, "student.quantization=int4"], 0.1),
        ("only labels", [*CUT, "student.quantization=int4", "criteria=[hard_label]"], 0.1),
        ("plain", ["teacher=pretrained", "teacher.path=model", "student.dropout=false"], 0.0),
    ):
        itself = [] if "student=from_teacher" in words else ITSELF
        run, said = call(name, *OPTIONS, *itself, *words, "trainer.max_epochs=1")
        written = json.loads((run / "student" / "config.json").read_text())
        assert written["hidden_dropout_prob"] == expected and "dropout is off" not in said, name


def test_scales_alone_are_trained_and_resumed_bit_by_bit(call, folder):
    more = ["student.quantization={scheme:int8_weights,train:scales}", "optimizer.lr=1e-4"]
    more += ["scheduler=constant"]
    whole, _ = call("whole", *OPTIONS, *ITSELF, *more)
    found = weights(whole / "checkpoints" / "last.ckpt")
    first = AutoModelForSequenceClassification.from_pretrained(folder / "model").state_dict()
    assert all(torch.equal(found[f"student.{name}"], value) for name, value in first.items())
    assert sum(name.endswith(".scale") for name in found) == 14
    cut = [*OPTIONS, *ITSELF, *more, "trainer.max_epochs=1"]
    call("cut", *cut)
    call("resumed", f"resume={folder / 'cut'}", "trainer.max_epochs=2")
    again = weights(folder / "cut" / "checkpoints" / "last.ckpt")
    assert again.keys() == found.keys()
    for name, value in found.items():
        assert torch.equal(again[name], value), name


def test_a_stage_may_come_before_the_rounding(call):
    stages = "stages=[{name:plain,quantization:false,trainer:{max_epochs:1}},{name:rounded}]"
    cut = ["teacher=pretrained", "teacher.path=model", "student=from_teacher", "student.layers=1"]
    options = [*OPTIONS, *cut, "student.quantization=int8_weights"]
    run, said = call("stages", *options, stages)
    assert said.index("Stage 1 of 2, plain") < said.index("Stage 2 of 2, rounded")
    plain = AutoModelForSequenceClassification.from_pretrained(run / "student").state_dict()
    weight = plain["bert.encoder.layer.0.output.dense.weight"]
    # Whole numbers of a step of each row, of which the largest is 127 or -128.
    parts = [weight / weight.abs().amax(1, keepdim=True) * most for most in (127, 128)]
    off = torch.stack([(part - part.round()).abs().amax(1) for part in parts])
    assert off.amin(0).max() < 1e-2


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["student.quantization=int"], "or null, got 'int'. Did you mean int8"),
        (
            ["student.quantization={scheme:int4,train:bias}"],
            "must be weights or scales, got 'bias'",
        ),
        (["student=lora", "student.quantization=int8"], "of this student only adapters are"),
    ],
)
def test_what_cannot_be_is_one_error_before_the_first_step(typed, words, call, capsys):
    with pytest.raises(SystemExit):
        call("refused", *OPTIONS, *ITSELF, "teacher=pretrained", "teacher.path=model", *typed)
    said = capsys.readouterr()
    assert words in said.err + said.out and "learning from" not in said.out
