"""What docs/architecture.md says of the house is so, and the code of its how-tos works."""

import importlib
import inspect
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from test_architecture import CORE, PACKAGE, ROOMS, ROOT
from tiny import bert
from torch.testing import assert_close

import lightning_distill.main  # noqa: F401  registers the resolvers
from lightning_distill import criteria, DistillationModule, Objective, Term
from lightning_distill.data.data import check_cacheable, check_keeps_teacher
from lightning_distill.jobs.cache import cache
from lightning_distill.run.data import build_data
from lightning_distill.run.metrics import build_metrics
from lightning_distill.run.models import build_student, build_teacher
from lightning_distill.run.objective import build_objective
from lightning_distill.run.task import task_in
from lightning_distill.run.trainer import build_module
from lightning_distill.tasks import Classification
from lightning_distill.teachers import CachedTeacher, Teacher

TEXT = (ROOT / "docs" / "architecture.md").read_text()
ROOMS_TEXT = TEXT.partition("## The rooms")[2].partition("\n## ")[0]
FENCES = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
# The files of the how-tos, by the path in their first line.
FILES = {m[1]: code for _, code in FENCES if (m := re.match(r"# (\S+\.(?:py|yaml))\n", code))}
LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}


def typed(part: str) -> list[str]:
    """The overrides of the first command in the text that holds `part`."""
    shown = [code for _, code in FENCES] + re.findall(r"`([^`\n]+)`", TEXT)
    line = next(line for line in shown if part in line and "=" in line)
    return shlex.split(line.removeprefix("lightning-distill"))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A project with the files of the text; those of the package are found in it."""
    for path, code in FILES.items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(code)
    generator = torch.Generator().manual_seed(0)
    for split, rows in (("train", 12), ("validation", 6), ("test", 6)):
        ids = torch.randint(5, 60, (rows, 7), generator=generator)
        ids[::2, -2:] = 0
        stars = torch.randint(0, 5, (rows,), generator=generator)
        np.savez(tmp_path / f"{split}.npz", ids=ids.numpy(), stars=stars.numpy())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    own = str(tmp_path / "lightning_distill" / "criteria")
    monkeypatch.setattr(criteria, "__path__", [*criteria.__path__, own])
    module = importlib.import_module("lightning_distill.criteria.charbonnier")
    for name in ("charbonnier", "Charbonnier"):
        monkeypatch.setattr(criteria, name, getattr(module, name), raising=False)
    monkeypatch.setattr(criteria, "__all__", [*criteria.__all__, "Charbonnier"])
    yield tmp_path
    for name in [n for n in sys.modules if n.split(".")[0] == "mine" or "charbonnier" in n]:
        del sys.modules[name]


def star_model(layers: int, seed: int, **changes) -> Any:
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return bert(layers, 8, seed=seed, num_labels=5, **(still | changes))


def config(folder: Path, *overrides: str) -> Any:
    common = [f"output_dir={folder / 'run'}", "trainer.accelerator=cpu", "optimizer.lr=0.01"]
    common += ["hydra.searchpath=[file://" + str(folder / "conf") + "]"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("main", overrides=[*common, *overrides])
    with open_dict(cfg):
        cfg.output_dir = str(folder / "run")
    return cfg


def data_options(folder: Path) -> list[str]:
    return [o.replace("=DIR", f"={folder}") for o in typed("mine.reviews.Reviews")]


def test_the_text_has_a_file_of_each_how_to():
    assert set(FILES) == {
        "mine/huber.py",
        "lightning_distill/criteria/charbonnier.py",
        "conf/criteria/charbonnier.yaml",
        "tests/criteria/test_charbonnier.py",
        "mine/stars.py",
        "mine/ensemble.py",
        "mine/reviews.py",
    }


def test_the_test_of_the_criterion_passes(folder):
    names: dict[str, Any] = {}
    exec(FILES["tests/criteria/test_charbonnier.py"], names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_row_of_the_criterion_is_one_of_its_page(folder):
    (row,) = (code.strip() for language, code in FENCES if language == "markdown")
    lines = (ROOT / "docs/criteria.md").read_text().splitlines()
    head = next(line for line in lines if "`Hint`" in line)
    assert row.count("|") == head.count("|")
    name, paper, formula, default, file = (cell.strip() for cell in row.strip("|").split("|"))
    assert name == "`Charbonnier`" and file == "`criteria/charbonnier.py`" and formula
    assert re.search(r"\d{4}$", paper)
    (setting,) = list(inspect.signature(criteria.Charbonnier).parameters.values())
    key, _, value = default.strip("`").partition("=")
    assert key == setting.name and float(value) == setting.default


def fit(module: DistillationModule, data: Any, folder: Path, steps: int = 2) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, enable_checkpointing=False, num_sanity_val_steps=0,
        default_root_dir=folder, **quiet,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return trainer


@torch.no_grad()
def test_one_of_each_named_on_the_command_line_trains_and_gives_what_torch_gives(folder):
    for i in range(2):
        star_model(2, seed=i).save_pretrained(folder / f"teacher{i}")
    star_model(1, seed=5).save_pretrained(folder / "student")
    teacher = " ".join(typed("mine.ensemble.ensemble"))
    for i in range(2):
        teacher = teacher.replace("DIR", str(folder / f"teacher{i}"), 1)
    # What the task agrees in is set where the data is named.
    (task,) = typed("+data.task={")
    cfg = config(
        folder, *data_options(folder), task.replace("tolerance: 1", "tolerance: 2"),
        "+data.batch_size=6", *shlex.split(teacher), *typed("+criteria.huber"),
        "student=pretrained", f"student.path={folder / 'student'}", "scheduler=constant",
        "criteria=[hard_label,charbonnier]", "criteria.charbonnier.inputs.teacher=teacher.logits",
        "criteria.charbonnier.inputs.student=student.logits",
        "criteria.charbonnier.inputs.mask=null", "criteria.charbonnier.criterion.epsilon=0.1",
    )  # fmt: skip
    data = build_data(cfg)
    metrics, objective = build_metrics(cfg, data), build_objective(cfg)
    teacher = build_teacher(cfg, data)
    student = build_student(cfg, data, teacher)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    module = build_module(cfg, student, teacher, objective, metrics)
    with torch.enable_grad():
        trainer = fit(module, data, folder)
    assert trainer.global_step == 2
    assert any(not torch.equal(before[n], v) for n, v in student.state_dict().items())
    assert type(module.task).__name__ == "Stars" and task_in(cfg).tolerance == 2
    # Against plain torch, on the validation rows.
    (batch,) = data.val_dataloader()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    student.eval()
    own = student(**inputs).logits
    both = [star_model(2, seed=i).eval()(**inputs).logits for i in range(2)]
    taught = (both[0] + both[1]) / 2
    found = trainer.callback_metrics
    charbonnier = torch.sqrt((own - taught) ** 2 + 0.01).mean()
    assert_close(found["val/charbonnier"], charbonnier)
    assert_close(found["val/huber"], torch.nn.functional.huber_loss(own, taught, delta=2.0))
    stars = (own.argmax(-1) - taught.argmax(-1)).abs()
    assert_close(found["val/agreement"], (stars <= 2).float().mean())
    right = (own.argmax(-1) == batch["labels"]).float().mean()
    assert_close(found["val/accuracy"], right)
    assert_close(found["val/hard_label"], torch.nn.functional.cross_entropy(own, batch["labels"]))


def test_the_criterion_takes_its_inputs_from_its_yaml(folder):
    objective = build_objective(config(folder, "criteria=[charbonnier]", "task=classification"))
    term = objective.terms["charbonnier"]
    assert isinstance(term.criterion, criteria.Charbonnier) and term.adapter == "linear"
    assert [str(source) for source in term.sources()] == [
        "student.hidden_states[-1]", "teacher.hidden_states[-1]", "batch.attention_mask",
    ]  # fmt: skip
    names: dict[str, Any] = {}
    exec(FILES["mine/huber.py"], names)
    assert isinstance(names["huber"], Term)


def test_the_task_agrees_where_classes_are_near_and_is_equal_by_its_settings(folder):
    stars = importlib.import_module("mine.stars").Stars
    student, teacher = (torch.eye(5)[[i]] for i in (1, 2))
    assert stars(1).agree(student, teacher, 0.5) and not stars(0).agree(student, teacher, 0.5)
    assert stars(1) == stars() != stars(2) and stars() != Classification()


def test_the_teacher_asks_all_its_models_and_none_of_them_is_touched(folder):
    ensemble = importlib.import_module("mine.ensemble").Ensemble
    models = [star_model(2, i, hidden_dropout_prob=0.5) for i in range(2)]
    data = importlib.import_module("mine.reviews").Reviews(folder, batch_size=6)
    objective = Objective({"soft": Term(criteria.SoftTarget(), LOGITS)})
    teacher = ensemble(models)
    module = DistillationModule(star_model(1, 5), teacher, objective)
    before = [v.clone() for m in models for v in m.state_dict().values()]
    fit(module, data, folder)
    after = [v for m in models for v in m.state_dict().values()]
    assert all(map(torch.equal, before, after))
    assert not any(p.requires_grad for m in models for p in m.parameters())
    assert not any("teacher" in name for name in module.state_dict())
    batch = data.batch("validation", torch.arange(6))
    expected = sum(m.eval()(batch["input_ids"], batch["attention_mask"]).logits for m in models) / 2
    # Whoever has put one of them into training mode.
    models[1].train()
    outputs, _ = module.taught_by.answers(batch, asker=module)
    assert_close(outputs["logits"], expected)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    models[1].train()
    assert_close(teacher(**inputs)["logits"], expected)
    # Known by all its weights, and as large as all of them.
    assert teacher.fingerprint != ensemble([models[0], star_model(2, 7)]).fingerprint
    assert teacher.fingerprint != Teacher(models[0]).fingerprint
    assert teacher.about()["parameters"] == sum(p.numel() for m in models for p in m.parameters())
    layer = Term(criteria.Hint(), {k: f"{k}.layer:bert.pooler" for k in LOGITS})
    with pytest.raises(ValueError, match=r"'layer' reads teacher\.layer:bert\.pooler; an ensemble"):
        teacher.check({"layer": layer})
    with pytest.raises(ValueError, match="same classes in the same order"):
        named = star_model(1, 0)
        named.config.id2label = dict(enumerate("abcde"))
        ensemble([models[0], named])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_data_gives_every_row_once_and_any_row_by_its_number(folder, split):
    data = importlib.import_module("mine.reviews").Reviews(folder, batch_size=5)
    data.setup("fit")
    loaders = {"train": data.train_dataloader, "validation": data.val_dataloader}
    batches = list(loaders.get(split, data.test_dataloader)())
    rows = torch.cat([batch["row"] for batch in batches])
    assert rows.sort().values.tolist() == list(range(12 if split == "train" else 6))
    check_keeps_teacher(data, "a test")
    check_cacheable(data, "a test")
    plan = [(split, batch["row"].tolist(), 0) for batch in batches]
    for planned, batch in zip(data.rows_dataloader(plan), batches, strict=True):
        assert planned.keys() == batch.keys()
        assert all(torch.equal(planned[name], batch[name]) for name in batch)
    assert data.row_lengths()[split][:2] == [5, 7]
    other = data.replace(batch_size=2)
    assert (data.batch_size, other.batch_size) == (5, 2)
    assert data.fingerprint() == other.fingerprint()
    for name in ("input_ids", "labels"):
        before, rows = data.fingerprint(), data.rows[split]
        data.rows[split] = rows | {name: rows[name] + 1}
        assert data.fingerprint() != before


def test_the_data_keeps_a_trained_teacher_and_its_answers_are_cached(folder, monkeypatch):
    """Levels 2 and 3 in one job; training from the cache is training from the teacher."""
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(folder / "kept"))
    small = [f"{role}.{name}={n}" for role in ("teacher.model", "student") for name, n in (
        ("hidden_size", 8), ("num_hidden_layers", 1), ("intermediate_size", 8),
        ("num_attention_heads", 2),
    )]  # fmt: skip
    vocabulary = ["+teacher.model.vocab_size=60", "+student.vocab_size=60"]
    cfg = config(
        folder, *data_options(folder), *small, *vocabulary, "criteria=[soft_target]",
        "teacher.max_epochs=1", "callbacks=[best_checkpoint]", "job=cache",
    )  # fmt: skip
    cache(cfg)
    answers = folder / "run" / "answers"
    (kept,) = (folder / "kept" / "teachers").iterdir()
    live = type(star_model(1, 0)).from_pretrained(kept).eval()
    data = importlib.import_module("mine.reviews").Reviews(folder)
    data.setup("fit")
    cached = CachedTeacher(answers)
    assert len(cached.store) == 24
    for split in data.rows:
        batch = data.batch(split, torch.arange(6).flip(0))
        outputs, _ = cached.answers(batch)
        with torch.no_grad():
            expected = live(batch["input_ids"], batch["attention_mask"]).logits
        assert_close(outputs["logits"], expected)


# The text itself.


def rooms_in_the_text() -> dict[str, set[str]]:
    """What each row of the table of rooms says that it may import."""
    rows = re.findall(r"^\| `([\w./]+?)(?:/|\.py)` \| .* \| ?([\w, ]*?) ?\|$", ROOMS_TEXT, re.M)
    return {room: set(filter(None, may.split(", "))) for room, may in rows}


def test_every_room_in_the_text_exists_and_every_package_is_in_it():
    rooms = rooms_in_the_text()
    packages = {p.parent.relative_to(PACKAGE) for p in PACKAGE.rglob("__init__.py")}
    packages = {p.as_posix() for p in packages if p.parts and p.parts[0] != "conf"}
    for name in re.findall(r"`((?!tests|conf|student|checkpoints|baseline|teacher)[\w/]+)/`", TEXT):
        assert name in packages, name
    assert {p for p in packages if "/" not in p} <= set(rooms)
    assert all(f"`{name}/`" in ROOMS_TEXT for name in packages if name not in rooms)


def test_the_text_says_of_each_room_what_it_may_import():
    rooms = rooms_in_the_text()
    assert set(rooms) == set(ROOMS) - {"moved", "__init__"}
    for room, may in rooms.items():
        known = ROOMS[room] - {room}
        assert may == ({"all"} if known >= {*CORE} - {"moved", "__init__"} else known), room


def test_every_file_in_the_text_exists():
    own = {Path(path).name for path in FILES}
    rest = re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    for name in re.findall(r"`([\w/]+\.py)`", rest):
        found = (ROOT / name).is_file() or list(PACKAGE.rglob(name))
        assert found or Path(name).name in own, name


def test_every_name_in_the_text_exists():
    for dotted in ("criteria.Criterion", "tasks.Task", "teachers.Teacher", "report.Comparison"):
        assert f"`{dotted}`" in TEXT
        room, name = dotted.split(".")
        assert hasattr(importlib.import_module(f"lightning_distill.{room}"), name)
    members = {
        criteria.Criterion: ["counted"],
        Teacher: ["answers", "run", "forward", "check", "about", "fingerprint"],
        Objective: ["measure"],
    }
    for cls, names in members.items():
        assert all(hasattr(cls, name) for name in names)
