"""`callbacks=[weight_average]`: what is validated, tested and saved is one student."""

from pathlib import Path

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tiny import bert
from torch.testing import assert_close
from torch.utils.data import DataLoader

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import SoftTarget

YAML = Path(__file__).parents[2] / "conf" / "callbacks" / "weight_average.yaml"


def test_the_average_of_a_student_reads_the_positions_that_there_are(tmp_path):
    node = OmegaConf.create(YAML.read_text()).weight_average
    callback = instantiate(node, decay=0.9)
    rows = [{"input_ids": torch.randint(5, 30, (6,)), "attention_mask": torch.ones(6).long()}] * 8
    term = Term(SoftTarget(), {"student": "student.logits", "teacher": "teacher.logits"})
    module = DistillationModule(bert(1, 8), bert(1, 8, seed=1), Objective({"soft": term}))
    before = {k: v.clone() for k, v in module.student.named_buffers()}
    drawn = []
    options = {"enable_progress_bar": False, "logger": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        max_steps=12, max_epochs=-1, callbacks=[callback], default_root_dir=tmp_path, **options
    )
    loader = DataLoader(rows, 2)
    # The average itself, by its definition in float64 from the weights after each step.
    weight = module.student.classifier.weight
    end = module.optimizer_step

    def step(*arguments, **more):
        end(*arguments, **more)
        drawn.append(weight.detach().double().clone())

    module.optimizer_step = step
    trainer.fit(module, loader, loader)
    for name, value in module.student.named_buffers():
        assert_close(value, before[name], msg=name)
    expected = drawn[0]
    for value in drawn[1:]:
        expected = 0.9 * expected + 0.1 * value
    assert_close(weight.double(), expected, atol=1e-6, rtol=0)
