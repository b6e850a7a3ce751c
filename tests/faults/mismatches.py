"""A teacher and a student, or their data, that do not fit: refused before the first step."""

from functools import cache, partial
from pathlib import Path

import torch
from faults.case import Case
from faults.compared import at, check_words
from faults.job import command, JOB, save_teacher, TINY, workplace
from transformers import AutoTokenizer

from lightning_distill.data.text.word_pieces import train_word_pieces

TITLE = "A teacher and a student that do not fit"
HIDDEN = "criteria=[hint]"


def cases() -> list[Case]:
    found = []
    for labels in (1, 3, 4, 7, 20):
        found.append(_teacher(f"classes: {labels}", quick=labels == 3, num_labels=labels))
    names = [["good", "bad"], ["cat", "dog"], ["bad", "worse"], ["Good", "Bad"], ["x", "good"]]
    for given in names:
        changes = {
            "id2label": dict(enumerate(given)),
            "label2id": {n: i for i, n in enumerate(given)},
        }
        found.append(_teacher(f"names of classes: {' '.join(given)}", **changes))
    for size in (5, 20, 60, 100):
        found.append(
            _teacher(f"a vocabulary smaller than the tokenizer's: {size}", vocab_size=size)
        )
    for length in (2, 4, 6):
        more = ["data.max_length=32"]
        found.append(
            _teacher(f"positions of the teacher: {length}", more, max_position_embeddings=length)
        )
    for length in (2, 4, 6):
        more = [f"student.max_position_embeddings={length}", "data.max_length=32"]
        found.append(_typed(f"positions of the student: {length}", more))
    for names in (["+student.vocab_size=5"], ["+student.vocab_size=30"], ["+student.num_labels=3"],
                  ["+student.num_labels=5"], ["+student.num_labels=1"]):  # fmt: skip
        found.append(_typed(f"student: {' '.join(names)}", names))
    found.append(Case("tokenizer: of other words", _other_words))
    for what in ("the teacher's head is missing", "a weight of the teacher is missing",
                 "a weight of the teacher has another shape", "a weight of the teacher is NaN",
                 "the teacher's weights are missing",
                 "the teacher's configuration is missing"):  # fmt: skip
        found.append(Case(f"folder: {what}", partial(_folder, what=what)))
    shapes = ["{student: student.logits, teacher: 'teacher.layer:bert.encoder.layer.0'}",
              "{student: 'student.layer:bert.pooler', teacher: teacher.logits}",
              "{student: student.logits, teacher: batch.labels}",
              "{student: student.logits, teacher: batch.nothing}",
              "{student: student.logits, teacher: teacher.nothing}",
              "{student: student.logits, teacher: 'teacher.layer:no.such'}",
              "{student: student.nothing, teacher: teacher.logits}",
              "{teacher: teacher.logits}", "{}", "{student: student.logits}"]  # fmt: skip
    for inputs in shapes:
        term = "{_target_: lightning_distill.Term, criterion: {_target_: "
        term += "lightning_distill.criteria.SoftTarget}, inputs: " + inputs + "}"
        found.append(_typed(f"term: {inputs}", [f"+criteria.mine={term}"]))
    for criterion in ("cwd", "fsp", "review_kd"):
        found.append(_typed(f"of pictures only: {criterion}", [f"criteria=[{criterion}]"]))
    return found


def _teacher(name: str, more=(), quick=False, **changes) -> Case:
    return Case(name, partial(_by_teacher, more=list(more), changes=changes), quick)


def _typed(name: str, more: list[str]) -> Case:
    return Case(name, partial(_by_command, more=more))


def _by_teacher(folder: Path, more, changes) -> None:
    save_teacher(folder / "teacher", _tokenizer(), **changes)
    names = changes.get("id2label", {})
    given = [*TINY, "teacher=pretrained", f"teacher.path={folder}/teacher", *more]
    ended = command([*given, at(folder / "run")])
    if ended.code == 0 and sorted(map(str.lower, names.values())) == ["bad", "good"]:
        # The same classes in another order, or written otherwise, are put in order.
        return
    _check(ended, folder)


def _by_command(folder: Path, more) -> None:
    _check(command([*JOB, at(folder / "run"), *more]), folder)


def _check(ended, folder: Path) -> None:
    check_words(ended)
    assert not list(folder.rglob("*.ckpt")), "a step was made"


@cache
def _tokenizer():
    return AutoTokenizer.from_pretrained(workplace() / "teacher")


def _other_words(folder: Path) -> None:
    other = train_word_pieces(["zebra quartz yonder vexing jumble"] * 9, 60, 32)
    save_teacher(folder / "teacher", other)
    given = [*TINY, "teacher=pretrained", f"teacher.path={folder}/teacher"]
    student = ["data.tokenizer=teacher", "criteria=[hint]"]
    ended = command([*given, *student, at(folder / "run")])
    # Each may read the rows with its own tokenizer; what is not meant is to share one silently.
    if ended.code == 0:
        assert "tokenizer" in ended.said.lower(), "other tokenizers, and not a word"
    else:
        _check(ended, folder)


def _folder(folder: Path, what: str) -> None:
    from safetensors.torch import load_file, save_file

    place = folder / "teacher"
    save_teacher(place, _tokenizer())
    file = place / "model.safetensors"
    state = load_file(file)
    name = "bert.encoder.layer.0.output.dense.weight"
    if "head" in what:
        state = {k: v for k, v in state.items() if not k.startswith("classifier")}
    elif "shape" in what:
        state[name] = state[name][:, :7].contiguous()
    elif "NaN" in what:
        state[name] = torch.full_like(state[name], float("nan"))
    else:
        state.pop(name)
    save_file(state, file, {"format": "pt"})
    if "weights are" in what:
        file.unlink()
    if "configuration" in what:
        (place / "config.json").unlink()
    given = [*TINY, "teacher=pretrained", f"teacher.path={place}"]
    _check(command([*given, at(folder / "run")]), folder)
