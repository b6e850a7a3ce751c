"""What job=cache writes: cut anywhere and given again, the files of an uncut run."""

from contextlib import suppress

import pytest
import torch
from tiny import bert, loader, text_batches, trainer

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.cache import Answer, AnswerStore, Full, Plan, row_ids
from lightning_distill.criteria import SoftTarget
from lightning_distill.models.source import Source
from lightning_distill.run.recording import Recording, shards_of
from lightning_distill.teachers import CachingTeacher

ROWS = {k: torch.cat([b[k] for b in text_batches(8)]) for k in text_batches(1)[0]}
BATCHES = [("train", list(range(i, min(i + 3, 32))), 0) for i in range(0, 32, 3)]
ANSWERS = [
    Answer("hidden_states[1]", True, (16,), Full("bfloat16")),
    Answer("logits", False, (3,), Full()),
]


class Data:
    def rows_dataloader(self, plan):
        return loader([{k: v[rows] for k, v in ROWS.items()} for _, rows, _ in plan])


class Cut(Exception):
    """In place of a kill."""


def writer(folder, seed=1, cut=None):
    teacher = CachingTeacher(bert(2, 16, seed=seed), folder)
    sources = {"student": "student.logits", "teacher": "teacher.logits"}
    module = DistillationModule(
        bert(1, 8, seed=2), teacher, Objective({"soft_target": Term(SoftTarget(), sources)})
    )
    who = {"fingerprint": teacher.fingerprint, "outputs": {"hidden_states": 3}, "modules": []}
    sizes = {"rows": 32, "bytes_per_row": 100, "rows_per_shard": 6, "shards": 6}
    plan = Plan(who, "32-true", ANSWERS, data=sizes)
    sources = [Source.parse("teacher.hidden_states[1]")]
    found = Recording(teacher, module, Data(), sources, plan, BATCHES)
    found.asked = 0
    step = found.predict_step

    def counted(batch, batch_idx):
        if found.asked == cut:
            raise Cut
        found.asked += 1
        step(batch, batch_idx)

    found.predict_step = counted
    return found


def written(folder, **options):
    """Write all, or as far as the cut; returns how many batches were asked."""
    found = writer(folder, **options)
    # Hidden states are asked for by their source, logits always.
    loop = trainer(folder.parent, inference_mode=False)
    with suppress(Cut):
        loop.predict(found)
    found.teardown("predict")
    return found.asked


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_rows_are_written_as_the_teacher_answers(tmp_path):
    assert written(tmp_path / "kept") == len(BATCHES)
    inputs = {k: ROWS[k] for k in ("input_ids", "attention_mask")}
    store = AnswerStore(tmp_path / "kept")
    assert len(store) == 32 and len(store.shards) == 6
    with torch.no_grad():
        live = bert(2, 16, seed=1).eval()(**inputs, output_hidden_states=True)
    ids = row_ids(inputs)
    found, lengths = store.read(ids, store.find(ids), ["logits", "hidden_states[1]"])
    torch.testing.assert_close(found["logits"], live.logits, atol=1e-6, rtol=1e-5)
    inside = inputs["attention_mask"].bool()
    assert lengths == inside.sum(1).tolist()
    torch.testing.assert_close(
        found["hidden_states[1]"], live.hidden_states[1][inside], atol=1e-5, rtol=2**-8
    )


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 10])
def test_cut_after_any_batch_it_goes_on_and_ends_with_the_same_files(tmp_path, cut):
    written(tmp_path / "uncut")
    assert written(tmp_path / "cut", cut=cut) == cut
    # Two batches are a shard, and whole shards are not asked again.
    assert written(tmp_path / "cut") == len(BATCHES) - cut // 2 * 2
    assert contents(tmp_path / "cut") == contents(tmp_path / "uncut")


@pytest.mark.parametrize("harm", ["flip", "another", "cut", "missing"])
def test_what_is_damaged_is_written_again_and_nothing_else(tmp_path, harm):
    written(tmp_path / "kept")
    right = contents(tmp_path / "kept")
    shard = tmp_path / "kept" / "shard-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    other = right["shard-00003.safetensors"]
    if harm == "missing":
        shard.unlink()
    else:
        shard.write_bytes({"flip": content, "another": other, "cut": content[:50]}[harm])
    assert written(tmp_path / "kept") == 2
    assert contents(tmp_path / "kept") == right


def test_shards_of_another_teacher_are_written_again_where_the_plan_does_not_tell(tmp_path):
    written(tmp_path / "right", seed=5)
    written(tmp_path / "kept", seed=1)
    with pytest.raises(ValueError, match="made otherwise: by another teacher .*Name another"):
        written(tmp_path / "kept", seed=5)
    (tmp_path / "kept" / "plan.json").write_text("damaged")
    assert written(tmp_path / "kept", seed=5) == len(BATCHES)
    assert contents(tmp_path / "kept") == contents(tmp_path / "right")


def test_rows_are_grouped_into_files_of_about_so_many():
    groups = list(shards_of(BATCHES, 6))
    assert [b for group in groups for b in group] == BATCHES
    assert [sum(len(rows) for _, rows, _ in g) for g in groups] == [6, 6, 6, 6, 6, 2]
    assert [len(g) for g in shards_of(BATCHES, 1)] == [1] * len(BATCHES)
    assert len(list(shards_of(BATCHES, 100))) == 1
    assert not list(shards_of([], 5))
