import pytest
from omegaconf import OmegaConf

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.callbacks import StepProfile
from lightning_distill.criteria import HardLabel
from lightning_distill.jobs import stage
from lightning_distill.report import Profile

CACHING = ("job/cache.yaml", "teacher/cached.yaml")


@pytest.mark.parametrize(
    ("choices", "target", "taught", "cacheable"),
    [
        (CACHING, "lightning_distill.teachers.pretrained", True, True),
        (CACHING, "lightning_distill.teachers.CachedTeacher", True, False),
        (CACHING, None, False, False),
        (CACHING[:1], "lightning_distill.teachers.pretrained", True, False),
        (CACHING[1:], "lightning_distill.teachers.pretrained", True, False),
    ],
)
def test_a_cache_is_advised_where_one_can_be_made(
    choices, target, taught, cacheable, student, teacher, tmp_path, monkeypatch
):
    for name in choices:
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    monkeypatch.setattr(stage, "files", lambda package: tmp_path / "conf")
    cfg = OmegaConf.create({"teacher": {"_target_": target} if target else None, "data": {}})
    terms = {"hard": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"})}
    module = DistillationModule(student, teacher if taught else None, Objective(terms))
    stage._keep_profile(cfg, module, StepProfile(), tmp_path)
    found = Profile.load(tmp_path)
    assert found.cacheable == cacheable
    assert found.num_workers is None and found.length_bucketing is None
