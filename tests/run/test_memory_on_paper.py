"""The memory of a run's step, which is the same on paper and, of small models, for real."""

import pytest
import torch
from hydra import compose, initialize_config_module
from texts_on_disk import write_csv

import lightning_distill.main  # noqa: F401  registers the resolvers
from lightning_distill.run import memory_on_paper as room
from lightning_distill.run.data import build_data

WORDS = (
    *("data=text_files", "data.train=tr.csv", "data.validation=te.csv", "data.test=te.csv"),
    *("data.label=kind", "data.tokenizer=model", "trainer.accelerator=cpu", "data.batch_size=8"),
    *("student.num_hidden_layers=1", "student.hidden_size=16", "student.intermediate_size=32"),
    *("teacher=pretrained", "teacher.path=model", "output_dir=."),
)


@pytest.mark.parametrize("accumulated", [1, 3])
def test_a_small_run_takes_on_paper_what_it_takes_for_real(tmp_path, monkeypatch, accumulated):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path, "model", 2)
    with initialize_config_module("lightning_distill.conf", version_base="1.3"):
        more = f"trainer.accumulate_grad_batches={accumulated}"
        cfg = compose("main", overrides=[*WORDS, more])
    data = build_data(cfg)
    seen, step_memory = [], room.step_memory

    def measured(module, batch, precision, every, mode, with_flops):
        weights = [p for m in (module.student, module.teacher) for p in m.parameters()]
        seen.append(({type(p.data) for p in weights}, every))
        return step_memory(module, batch, precision, every, mode, with_flops)

    monkeypatch.setattr(room, "step_memory", measured)
    predicted, rows = room.memory_on_paper(cfg, data, with_flops=False)
    assert room.memory_on_paper(cfg, data, with_flops=False, small_for_real=True) == (
        predicted,
        rows,
    )
    monkeypatch.setattr(room, "SMALL", 0)
    room.memory_on_paper(cfg, data, with_flops=False, small_for_real=True)
    kinds = [kinds for kinds, _ in seen]
    assert kinds[1] == {torch.Tensor} and torch.Tensor not in kinds[0] | kinds[2]
    assert rows == 8 and predicted.whole and {every for _, every in seen} == {accumulated}
