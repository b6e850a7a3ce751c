"""Settings of what is kept of a teacher that change nothing are refused."""

import pytest

from lightning_distill.models.source import Source
from lightning_distill.teachers.refusals import check_effects

LOGITS = [Source("teacher", "output", "logits")]
SPARSE = [Source("teacher", "sparse", "logits")]
HIDDEN = [Source("teacher", "output", "hidden_states", item=-1)]
FUSED = [Source("teacher", "layer_input", "lm_head"), Source("teacher", "head", "lm_head")]


@pytest.mark.parametrize(
    "given", [{"logits": "top_k", "k": 4}, {"k": 4}, {"draws": 4}, {"temperature": 2.0}]
)
def test_fewer_logits_are_refused_where_none_are_kept(given):
    name, value = next(iter(given.items()))
    words = f"job.{name}={value} changes nothing: the criteria read teacher.layer_input:lm_head, of"
    with pytest.raises(ValueError, match=words) as told:
        check_effects(FUSED, given, "this job", "job.")
    assert "criteria=[fused_linear_top_k] with job.logits=top_k" in str(told.value)


@pytest.mark.parametrize(
    ("sources", "given"),
    [
        (FUSED, {}),
        (FUSED, {"logits": "full", "dtype": "bfloat16", "hidden_dtype": "float16"}),
        (FUSED + LOGITS, {"logits": "top_k", "k": 4, "temperature": 2.0}),
        (HIDDEN, {"logits": "sampled", "draws": 4, "hidden_dtype": "float8"}),
        (SPARSE, {"logits": "top_k", "dtype": "float16"}),
        (LOGITS, {"dtype": "float16", "hidden_dtype": "float32"}),
        # Logits are kept for metrics, also where no criterion reads them.
        ([], {"logits": "top_k", "k": 4}),
    ],
)
def test_what_changes_something_passes(sources, given):
    check_effects(sources, given, "this job", "job.")
