import pytest
from omegaconf import OmegaConf

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.callbacks import StepProfile
from lightning_distill.criteria import HardLabel
from lightning_distill.report import Profile
from lightning_distill.run import stage
from lightning_distill.teachers import CachingTeacher


@pytest.mark.parametrize(
    ("kind", "cacheable"), [("live", True), ("caching", False), ("none", False)]
)
def test_a_cache_is_advised_where_there_is_none(kind, cacheable, student, teacher, tmp_path):
    given = {"live": teacher, "caching": CachingTeacher(teacher, tmp_path / "kept"), "none": None}
    terms = {"hard": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"})}
    module = DistillationModule(student, given[kind], Objective(terms))
    cfg = OmegaConf.create({"data": {}})
    stage._keep_profile(cfg, module, StepProfile(), tmp_path)
    found = Profile.load(tmp_path)
    assert found.cacheable == cacheable
    assert found.num_workers is None and found.length_bucketing is None
