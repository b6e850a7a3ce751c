"""What job=cache writes: cut anywhere and given again, the files of an uncut run."""

import pytest
import torch
from tiny import bert, loader, text_batches, trainer

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.cache import Answer, AnswerStore, Full, row_ids
from lightning_distill.criteria import SoftTarget
from lightning_distill.jobs.cache import _finish, _shards, CacheWriter
from lightning_distill.models import fingerprint
from lightning_distill.models.source import Source

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
    teacher = bert(2, 16, seed=seed)
    sources = {"student": "student.logits", "teacher": "teacher.logits"}
    module = DistillationModule(
        bert(1, 8, seed=2), teacher, Objective({"soft_target": Term(SoftTarget(), sources)})
    )
    about = {
        "teacher": {
            "fingerprint": fingerprint(teacher),
            "outputs": {"hidden_states": 3},
            "modules": [],
        },
        "rows": 32,
        "bytes_per_row": 100,
        "rows_per_shard": 6,
    }
    plan = {"about": about, "answers": [a.settings() for a in ANSWERS]}
    folder.mkdir(exist_ok=True)
    found = CacheWriter(
        module, Data(), [Source.parse("teacher.hidden_states[1]")], folder, plan, BATCHES
    )
    found.asked = 0
    step = found.predict_step

    def counted(batch, batch_idx):
        if found.asked == cut:
            raise Cut
        found.asked += 1
        step(batch, batch_idx)

    found.predict_step = counted
    return found, plan


def written(folder, **options):
    """Write all, or as far as the cut; returns how many batches were asked."""
    found, plan = writer(folder, **options)
    # Hidden states are asked for by their source, logits always.
    loop = trainer(folder.parent, inference_mode=False)
    try:
        loop.predict(found)
    except Cut:
        return found.asked
    _finish(folder, plan, found.shard_count, 0.0)
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


@pytest.mark.parametrize("harm", ["shard", "sidecar", "sidecar of another", "cut"])
def test_what_is_damaged_is_written_again_and_nothing_else(tmp_path, harm):
    written(tmp_path / "kept")
    right = contents(tmp_path / "kept")
    shard, beside = (tmp_path / "kept" / f"shard-00002.{e}" for e in ("safetensors", "json"))
    if harm == "sidecar of another":
        beside.write_bytes(right["shard-00003.json"])
    else:
        path = beside if harm == "sidecar" else shard
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content[:50] if harm == "cut" else content)
    assert written(tmp_path / "kept") == 2
    assert contents(tmp_path / "kept") == right


def test_shards_of_another_teacher_are_written_again(tmp_path):
    # As where plan.json, which would tell, was damaged.
    written(tmp_path / "right", seed=5)
    written(tmp_path / "kept", seed=1)
    assert written(tmp_path / "kept", seed=5) == len(BATCHES)
    assert contents(tmp_path / "kept") == contents(tmp_path / "right")


def test_rows_are_grouped_into_files_of_about_so_many():
    groups = list(_shards(BATCHES, 6))
    assert [b for group in groups for b in group] == BATCHES
    assert [sum(len(rows) for _, rows, _ in g) for g in groups] == [6, 6, 6, 6, 6, 2]
    assert [len(g) for g in _shards(BATCHES, 1)] == [1] * len(BATCHES)
    assert len(list(_shards(BATCHES, 100))) == 1
    assert not list(_shards([], 5))
