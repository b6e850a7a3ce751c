"""A teacher that keeps its answers, under kills, other folders and other batches."""

import copy
import os
import pickle
import threading

import pytest
import torch
from tiny import bert, loader, text_batches, trainer
from torch import nn

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.cache import Full
from lightning_distill.cache.shard import whole_shard
from lightning_distill.cache.signed_json import read_json, write_json
from lightning_distill.criteria import Hint, SoftTarget
from lightning_distill.models.source import Source
from lightning_distill.teachers import CachedTeacher, caching, CachingTeacher

LOGITS = Source.parse("teacher.logits")
HIDDEN = Source.parse("teacher.hidden_states[1]")
SMALL = 1 / 2**12  # 256 bytes: a shard for every few batches


def alone() -> None:
    """The barrier of one rank."""


class Counted(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.config, self.rows = model, model.config, 0

    def forward(self, input_ids, attention_mask, output_hidden_states=False):
        self.rows += len(input_ids)
        return self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=output_hidden_states,
        )


def keeping(folder, seed=1, rank=0, barrier=alone, terms=None, precision="32-true", **options):
    """A caching teacher that has begun, unless there is no barrier, and the module that asks it."""
    options = {"shard_mb": SMALL, "hidden_dtype": "float32"} | options
    teacher = CachingTeacher(Counted(bert(2, 16, seed=seed)), folder, **options)
    module = asking(teacher, terms)
    teacher.check(dict(module.objective.terms.items()))
    if barrier is not None:
        teacher.begin(rank, barrier, precision)
    return teacher, module


def asking(teacher, terms=None):
    sources = {"student": "student.logits", "teacher": "teacher.logits"}
    terms = terms or {"soft_target": Term(SoftTarget(), sources)}
    return DistillationModule(bert(1, 8, seed=2), teacher, Objective(terms))


def ask(teacher, module, batches, sources=(LOGITS,)):
    with torch.no_grad():
        return [teacher.answers(b, sources, module, keep=True)[1] for b in batches]


def answers(batches, seed=1):
    """What the teacher itself says."""
    model = bert(2, 16, seed=seed).eval()
    with torch.no_grad():
        return [
            model(input_ids=b["input_ids"], attention_mask=b["attention_mask"]).logits
            for b in batches
        ]


def assert_right(found, batches, seed=1):
    for values, right in zip(found, answers(batches, seed), strict=True):
        torch.testing.assert_close(values[LOGITS], right, atol=1e-6, rtol=1e-5)


def test_what_was_written_before_a_kill_is_not_asked_again(tmp_path):
    batches = text_batches(8)
    first, module = keeping(tmp_path)
    ask(first, module, batches[:5])
    shards = tmp_path.glob("shard-*.safetensors")
    kept = sum(whole_shard(path, first.writer.plan.signature)["rows"] for path in shards)
    # One more was on its way when the process died.
    (tmp_path / ".shard-000-00009.safetensors.0.part").write_bytes(b"half")
    assert 4 <= kept <= 20
    again, module = keeping(tmp_path)
    assert len(again.store) == kept
    assert not list(tmp_path.glob(".*.part"))
    found = ask(again, module, batches)
    assert again.model.rows == 32 - kept
    again.end_epoch(alone)
    assert_right(found, batches)
    assert_right(ask(again, module, batches), batches)
    assert again.model.rows == 32 - kept
    assert len(CachedTeacher(tmp_path).store) == 32


@pytest.mark.parametrize("harm", ["cut", "flip", "another", "empty"])
def test_a_shard_that_is_not_whole_is_asked_again(tmp_path, harm):
    batches = text_batches(6)
    first, module = keeping(tmp_path)
    ask(first, module, batches)
    first.end_epoch(alone)
    shards = sorted(tmp_path.glob("shard-*.safetensors"))
    rows = {s.name: f["rows"] for s, f in zip(shards, first.store.shards, strict=True)}
    shard, content = shards[1], bytearray(shards[1].read_bytes())
    content[-5] ^= 4
    another = shards[0].read_bytes()
    shard.write_bytes(
        {"cut": content[:40], "flip": content, "empty": b"", "another": another}[harm]
    )
    again, module = keeping(tmp_path)
    found = ask(again, module, batches)
    assert_right(found, batches)
    # The batches that hold its rows.
    assert again.model.rows == rows[shard.name]
    again.end_epoch(alone)
    assert_right(ask(again, module, batches), batches)
    assert again.store.check_files() == []


def test_two_ranks_write_side_by_side_and_read_each_others_rows(tmp_path):
    batches = text_batches(12)
    barrier = threading.Barrier(2, timeout=60)
    rows, errors = [0, 0], []
    # Not by the ranks, which are threads: a model's weights are drawn from one generator.
    right = answers(batches)
    # Made one after the other: they draw their weights from one generator.
    pairs = [keeping(tmp_path, barrier=None) for _ in range(2)]

    def rank(number):
        try:
            teacher, module = pairs[number]
            teacher.begin(number, barrier.wait, "32-true")
            for epoch in range(2):
                # In the second epoch each has what the other had in the first.
                own = slice((number + epoch) % 2, None, 2)
                found = ask(teacher, module, batches[own])
                for values, logits in zip(found, right[own], strict=True):
                    torch.testing.assert_close(values[LOGITS], logits, atol=1e-6, rtol=1e-5)
                teacher.end_epoch(barrier.wait)
            rows[number] = teacher.model.rows
        except BaseException as error:
            barrier.abort()
            errors.append(error)

    threads = [threading.Thread(target=rank, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    # A batch is asked with one token less too, for the shapes.
    assert max(rows) <= 24 + 4
    assert len(CachedTeacher(tmp_path).store) == 48


def test_folders_of_others_are_refused(tmp_path):
    batches = text_batches(2)
    teacher, module = keeping(tmp_path)
    ask(teacher, module, batches)
    teacher.end_epoch(alone)
    with pytest.raises(ValueError, match="made otherwise: by another teacher .*Name another fol"):
        keeping(tmp_path, seed=5)
    with pytest.raises(ValueError, match=r"teacher.logits.kind was full and is top_k"):
        keeping(tmp_path, logits="top_k", k=2)
    # Half of a folder, of which nobody knows whose answers it holds.
    plan = (tmp_path / "plan.json").read_bytes()
    (tmp_path / "plan.json").write_bytes(plan[:-30])
    with pytest.raises(ValueError, match="plan.json is damaged, and it is not known whose answers"):
        keeping(tmp_path)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(ValueError, match="holds a cache without its plan.json"):
        keeping(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match="holds a cache without its plan.json"):
        keeping(tmp_path, seed=5)
    # What job=cache writes into its plan.
    (tmp_path / "plan.json").write_bytes(plan)
    content = read_json(tmp_path / "plan.json")
    content["about"]["rows_per_shard"] = 100
    write_json(tmp_path / "plan.json", content)
    with pytest.raises(
        ValueError, match="by lightning-distill job=cache .train from it with teacher=cached"
    ):
        keeping(tmp_path)


def test_shards_of_another_teacher_in_a_folder_are_not_read(tmp_path):
    batches = text_batches(4)
    for name, seed in (("one", 1), ("other", 5)):
        teacher, module = keeping(tmp_path / name, seed=seed)
        ask(teacher, module, batches)
        teacher.end_epoch(alone)
    for path in (tmp_path / "other").glob("shard-*"):
        (tmp_path / "one" / path.name).write_bytes(path.read_bytes())
    teacher, module = keeping(tmp_path / "one")
    assert_right(ask(teacher, module, batches), batches)


def test_rows_that_are_new_in_each_epoch_are_refused_and_some_that_are_known_are_not(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(caching, "LOOKED_AT", 16)
    teacher, module = keeping(tmp_path / "drawn")
    ask(teacher, module, text_batches(4, seed=0))
    teacher.end_epoch(alone)
    with pytest.raises(ValueError, match=r"None of 16 rows of epoch 1 was seen before, .*draws"):
        ask(teacher, module, text_batches(4, seed=1))
    # In every batch one row that is new: no batch is known, and three rows of four are.
    teacher, module = keeping(tmp_path / "some")
    batches = text_batches(8)
    ask(teacher, module, batches)
    teacher.end_epoch(alone)
    mixed = [{k: v.clone() for k, v in b.items()} for b in batches]
    for batch, new in zip(mixed, text_batches(8, seed=1), strict=True):
        batch["input_ids"][0] = new["input_ids"][0]
    assert_right(ask(teacher, module, mixed), mixed)
    # As many views as there are epochs in which all is new.
    teacher, module = keeping(tmp_path / "views", views=2)
    for seed in (0, 1, 0, 1):
        ask(teacher, module, text_batches(4, seed=seed))
        teacher.end_epoch(alone)
    assert len(teacher.store) == 32


def test_views_begin_anew_with_each_stage_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "LOOKED_AT", 16)
    teacher, module = keeping(tmp_path, views=2)
    ask(teacher, module, text_batches(4, seed=0))
    teacher.end_epoch(alone)
    teacher.end(alone)
    # The first stage has seen one view of two.
    teacher.begin(0, alone, "32-true")
    for seed in (0, 1, 0):
        ask(teacher, module, text_batches(4, seed=seed))
        teacher.end_epoch(alone)
    with pytest.raises(ValueError, match="None of 16 rows of epoch 3 was seen before"):
        ask(teacher, module, text_batches(4, seed=2))


def hint(mask):
    sources = {"student": "student.hidden_states[1]", "teacher": "teacher.hidden_states[1]"}
    return {"hint": Term(Hint(), sources | mask, adapter="linear")}


def test_a_term_without_a_mask_is_refused_where_there_is_padding(tmp_path):
    padded = text_batches(2)
    whole = [{k: v.clone() for k, v in b.items()} for b in padded]
    for batch in whole:
        batch["attention_mask"][:] = 1
    teacher, module = keeping(tmp_path / "no mask", terms=hint({}))
    ask(teacher, module, whole, (HIDDEN,))
    with pytest.raises(ValueError, match="Term 'hint' reads teacher.hidden_states.* has no mask"):
        ask(teacher, module, padded, (HIDDEN,))
    teacher.end_epoch(alone)
    # Also in the run after it, where the answers are there.
    teacher, module = keeping(tmp_path / "mask", terms=hint({"mask": "batch.attention_mask"}))
    found = ask(teacher, module, padded, (HIDDEN,))
    teacher.end_epoch(alone)
    read = ask(teacher, module, padded, (HIDDEN,))
    for live, kept, batch in zip(found, read, padded, strict=True):
        inside = batch["attention_mask"].bool()
        torch.testing.assert_close(kept[HIDDEN][inside], live[HIDDEN][inside])
        assert kept[HIDDEN][~inside].eq(0).all() and torch.equal(kept[HIDDEN], live[HIDDEN])
    teacher, module = keeping(tmp_path / "mask", terms=hint({}))
    with pytest.raises(ValueError, match="has no mask"):
        ask(teacher, module, padded, (HIDDEN,))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "float16", "hidden_dtype": "bfloat16"},
        {"hidden_dtype": "float8"},
        {"logits": "top_k", "k": 1, "dtype": "bfloat16"},
        {"logits": "sampled", "draws": 4},
    ],
    ids=str,
)
def test_what_is_asked_is_what_will_be_read(tmp_path, options):
    # So a run that was killed, and reads some rows that it asked before, learns from the same.
    batches, sources = text_batches(4), (LOGITS, HIDDEN)
    teacher, module = keeping(tmp_path, terms=hint({"mask": "batch.attention_mask"}), **options)
    asked = ask(teacher, module, batches, sources)
    teacher.end_epoch(alone)
    rows = teacher.model.rows
    for first, again in zip(asked, ask(teacher, module, batches, sources), strict=True):
        assert all(torch.equal(first[s], again[s]) for s in sources)
    assert teacher.model.rows == rows
    # A batch of which some rows are known is asked whole, and answered as the others are.
    mixed = {n: torch.cat([batches[0][n][:2], v]) for n, v in text_batches(1, seed=9)[0].items()}
    (first,) = ask(teacher, module, [mixed], sources)
    teacher.end_epoch(alone)
    (again,) = ask(teacher, module, [mixed], sources)
    assert torch.equal(first[LOGITS][2:], again[LOGITS][2:])
    # A batch that is only tried is no part of it.
    tried = text_batches(1, seed=11)[0]
    with torch.no_grad():
        _, live = teacher.live.answers(tried, sources, module)
        _, found = teacher.answers(tried, sources, module)
    assert all(torch.equal(live[s], found[s]) for s in sources)


class Plain(nn.Module):
    """Neither a config nor names of labels, and one argument."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(5, 3)

    def forward(self, x):
        return self.linear(x)


def test_pairs_and_models_without_a_config(tmp_path):
    batches = [(torch.randn(4, 5), torch.zeros(4, dtype=torch.long)) for _ in range(3)]
    teacher = CachingTeacher(Plain(), tmp_path)
    module = DistillationModule(Plain(), teacher, asking(bert(1, 8)).objective)
    teacher.begin(0, alone, "32-true")
    live = ask(teacher, module, batches)
    teacher.end_epoch(alone)
    with torch.no_grad():
        # What is read from now on is not from its weights.
        teacher.model.linear.weight.zero_()
    cached = CachedTeacher(tmp_path)
    other = DistillationModule(Plain(), cached, asking(bert(1, 8)).objective)
    for values, kept, (x, _), batch in zip(
        live, ask(teacher, module, batches), batches, batches, strict=True
    ):
        assert torch.equal(values[LOGITS], kept[LOGITS])
        assert torch.equal(cached.answers(batch, [LOGITS], other)[1][LOGITS], kept[LOGITS])
        assert torch.equal(cached(x)["logits"], kept[LOGITS])
    assert cached.config.id2label is None


def test_a_teacher_with_its_own_tokens_is_found_by_them(tmp_path):
    batches = [
        b | {"teacher": {k: o[k] for k in ("input_ids", "attention_mask")}}
        for b, o in zip(text_batches(3), text_batches(3, tokens=9, seed=7), strict=True)
    ]
    teacher, module = keeping(tmp_path)
    live = ask(teacher, module, batches, (LOGITS,))
    teacher.end_epoch(alone)
    rows = teacher.model.rows
    # Other tokens for the student are no matter, other tokens for the teacher are another row.
    same = [b | {"input_ids": b["input_ids"] + 1} for b in batches]
    for values, kept in zip(live, ask(teacher, module, same), strict=True):
        torch.testing.assert_close(kept[LOGITS], values[LOGITS])
    assert teacher.model.rows == rows
    assert_right(live, [b["teacher"] for b in batches])


def test_labels_in_another_order_are_in_the_students_order_however_they_come(tmp_path):
    batches, losses = text_batches(3), []
    live = bert(2, 16, seed=1)
    live.config.id2label = {0: "c", 1: "a", 2: "b"}
    caching_ = CachingTeacher(copy.deepcopy(live), tmp_path)
    modules = []
    for teacher in (live, caching_):
        student = bert(1, 8, seed=2)
        student.config.id2label = {0: "a", 1: "b", 2: "c"}
        modules.append(DistillationModule(student, teacher, asking(bert(1, 8)).objective))
    caching_.begin(0, alone, "32-true")
    with torch.no_grad():
        for module in modules:
            losses.append([module.read_sources(b)[0][LOGITS] for b in batches])
        caching_.end_epoch(alone)
        losses.append([modules[1].read_sources(b)[0][LOGITS] for b in batches])
        student = bert(1, 8, seed=2)
        student.config.id2label = {0: "a", 1: "b", 2: "c"}
        cached = DistillationModule(student, CachedTeacher(tmp_path), asking(bert(1, 8)).objective)
        losses.append([cached.read_sources(b)[0][LOGITS] for b in batches])
    right = [logits[:, [1, 2, 0]] for logits in answers(batches)]
    for found in losses:
        for mine, theirs in zip(found, right, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


def test_teachers_are_copied_and_sent_to_other_processes(tmp_path):
    batches = text_batches(2)
    teacher, module = keeping(tmp_path, hidden_dtype="bfloat16")
    ask(teacher, module, batches)
    teacher.end_epoch(alone)
    for send in (copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))):
        other = send(teacher)
        assert_right(ask(other, asking(other), batches), batches)
        assert other.encoding("logits") == teacher.encoding("logits")
        assert other.encoding("x") == Full("bfloat16") != other.encoding("logits")
        cached = send(CachedTeacher(tmp_path))
        assert_right([cached.answers(b, [LOGITS], asking(cached))[1] for b in batches], batches)


def test_answers_of_another_precision_are_never_read(tmp_path):
    batches = text_batches(3)
    teacher, module = keeping(tmp_path, precision="bf16-mixed")
    ask(teacher, module, batches)
    teacher.end(alone)
    words = "made otherwise: under precision bf16-mixed, and this run has 32-true.* another folder"
    with pytest.raises(ValueError, match=words):
        keeping(tmp_path, precision="32-true")
    # Refused, it has not locked the folder.
    assert not (tmp_path / "writing.lock").exists()
    cached = CachedTeacher(tmp_path)
    cached.begin(0, alone, "bf16-mixed")
    words = r"bf16-mixed, and this run has 32-true\. .* Train with trainer.precision=bf16-mixed, or"
    with pytest.raises(ValueError, match=words + " make a cache with trainer.precision=32-true"):
        cached.begin(0, alone, "32-true")
    # A teacher that goes on after a run that raised looks anew.
    teacher, module = keeping(tmp_path, precision="bf16-mixed")
    with pytest.raises(ValueError, match="under precision bf16-mixed, and this run has 32-true"):
        teacher.begin(0, alone, "32-true")


def test_a_trainer_of_another_precision_makes_no_step(tmp_path):
    data = loader(text_batches(3))
    teacher = CachingTeacher(bert(2, 16, seed=1), tmp_path / "kept")
    trainer(tmp_path, precision="bf16-mixed").fit(asking(teacher), data)
    for again in (teacher, CachedTeacher(tmp_path / "kept")):
        loop = trainer(tmp_path)
        with pytest.raises(ValueError, match="under precision bf16-mixed, and this run has 32-tru"):
            loop.fit(asking(again), data)
        with pytest.raises(ValueError, match="under precision bf16-mixed, and this run has 32-tru"):
            loop.test(asking(again), data, verbose=False)
        assert loop.global_step == 0
        trainer(tmp_path, precision="bf16-mixed").validate(asking(again), data, verbose=False)


def test_a_folder_into_which_another_process_writes_is_refused(tmp_path):
    batches = text_batches(4)
    teacher, module = keeping(tmp_path)
    ask(teacher, module, batches[:2])
    if (child := os.fork()) == 0:
        try:
            keeping(tmp_path)
        except ValueError as error:
            words = f"Process {os.getppid()} on " in str(error) and "Wait until it" in str(error)
            os._exit(3 if words else 4)
        os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    # The first goes on, and nothing of its is gone.
    ask(teacher, module, batches[2:])
    teacher.end(alone)
    assert len(CachedTeacher(tmp_path).store) == 16
    assert not (tmp_path / "writing.lock").exists()


def test_runs_give_their_files_names_of_their_own(tmp_path):
    batches = text_batches(8)
    contents = {}
    for run in (slice(0, 4), slice(4, 8)):
        teacher, module = keeping(tmp_path)
        ask(teacher, module, batches[run])
        teacher.end(alone)
        now = {p.name: p.read_bytes() for p in tmp_path.glob("shard-*")}
        assert contents.items() < now.items()
        contents = now
    # Not even two that write at once replace each other's answers.
    one, other = (CachingTeacher(bert(2, 16, seed=1), tmp_path / "at once") for _ in range(2))
    for teacher, own in ((one, batches[:4]), (other, batches[4:])):
        teacher.begin(0, alone, "32-true")
        ask(teacher, asking(teacher), own)
    for teacher in (one, other):
        teacher.end(alone)
    other.begin(0, alone, "32-true")
    assert len(other.store) == 32
