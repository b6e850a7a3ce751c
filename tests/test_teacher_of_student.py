"""A quantised student that is loaded learns from itself, unless another teacher is named."""

import pytest

from lightning_distill.teacher_of_student import with_teacher

WORDS = ["student=pretrained", "student.path=DIR", "student.quantization=int4"]


@pytest.mark.parametrize(
    "words",
    [
        WORDS,
        [*WORDS[:2], "student.quantization={scheme:int4,train:scales}"],
        [*WORDS, "experiment=sst2"],
        [*WORDS, "job=distill", "-m", "seed=1,2"],
        *([*WORDS, f"job={job}"] for job in ("cache", "inspect", "check", "generate")),
        [*WORDS, "job=compare", "job.seeds=3"],
        [*WORDS, "job=search", "job.space.optimizer.lr=[1e-3,1e-4]"],
        # What is tried is quantised.
        [*WORDS[:2], "job=search", "++job.space.student.quantization=[int8,int4]"],
        [*WORDS[:2], "job=search", "job.space={student.quantization:[int8,int4]}"],
        [*WORDS[:2], "job=search", "job.space={student:{quantization:[int8,int4]}}"],
        # The experiment quantises it.
        ["experiment=quantised", *WORDS[:2]],
    ],
)
def test_nobody_names_a_teacher(words, capsys):
    assert with_teacher(words) == [*words, "teacher=unquantised"]
    assert "Teacher: the student before it is quantised" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        WORDS[:2],
        [*WORDS[:2], "student.quantization=null"],
        ["student=from_teacher", "student.quantization=int4"],
        [*WORDS, "teacher=pretrained", "teacher.path=DIR"],
        [*WORDS, "~teacher"],
        # It takes a teacher of its own.
        [*WORDS, "experiment=minitron"],
        ["experiment=prune_distil_quantise", *WORDS[:2]],
        ["experiment=quantised", *WORDS[:2], "student.quantization=null"],
        ["experiment=quantised"],
        [*WORDS[:2], "job=search", "job.space.student.path=[A,B]"],
        *([*WORDS, f"job={job}"] for job in ("finetune", "evaluate", "export")),
        [*WORDS, "resume=runs/x"],
    ],
)
def test_a_teacher_is_named_or_there_is_none(words, capsys):
    assert with_teacher(words) == words and capsys.readouterr().err == ""
