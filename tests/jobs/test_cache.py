"""The teacher's answers on disk, from the command line."""

import importlib
import json
import os
import time
from pathlib import Path

import pytest
import torch
from processes import run_program, started
from test_tasks import files, report, run, saved, SMALL, SMALL_STUDENT, text  # noqa: F401

from lightning_distill.cache import AnswerStore
from lightning_distill.data.text.token_masking import TokenMasking
from lightning_distill.data.text.word_pieces import train_word_pieces
from lightning_distill.teachers import CachedTeacher, pretrained

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# 40 rows in five files.
FEW = ["job.batch_size=8", "job.shard_mb=0.0007"]


@pytest.fixture
def teacher(tmp_path) -> list[str]:
    """Data with a teacher that is trained already, as arguments."""
    arguments = files(tmp_path, ["bad", "good"] * 20)
    path = saved(tmp_path / "teacher", 2, ["bad", "good"], [text(i) for i in range(40)])
    return [*arguments, "teacher=pretrained", f"teacher.path={path}", *SMALL_STUDENT]


def error(folder: Path, capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


def cached(arguments: list[str], folder: Path) -> list[str]:
    """The same arguments, with the teacher's answers in its place."""
    kept = [a for a in arguments if not a.startswith("teacher")]
    return [*kept, "teacher=cached", f"teacher.folder={folder}"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def program(folder: Path) -> Path:
    """The command, as a file."""
    path = folder / "lightning_distill_command.py"
    path.write_text("from lightning_distill.main import main\n\nmain()\n")
    return path


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "LIGHTNING_DISTILL_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }


def test_a_student_learns_the_same_from_the_answers(run, teacher, tmp_path):  # noqa: F811
    # Both splits have the same texts, which are answered once.
    answers = run("job=cache", *teacher, *FEW) / "answers"
    assert len(AnswerStore(answers)) == 40
    assert len(list(answers.glob("shard-*.safetensors"))) > 3
    live = report(run(*teacher))
    learnt = report(run(*cached(teacher, answers)))
    assert learnt["student"]["metrics"] == pytest.approx(live["student"]["metrics"], abs=1e-6)
    assert learnt["baseline"]["metrics"] == pytest.approx(live["baseline"]["metrics"], abs=1e-6)
    assert learnt["teacher"]["metrics"] == pytest.approx(live["teacher"]["metrics"], abs=1e-6)
    assert learnt["teacher"]["parameters"] == live["teacher"]["parameters"]
    assert learnt["teacher"]["latency_ms"] is None
    assert learnt["teacher"]["missing"]["flops"] == "no model in memory"
    assert learnt["student"]["flops"] == live["student"]["flops"]


def test_it_keeps_what_each_stage_reads(run, teacher, tmp_path):  # noqa: F811
    of = (
        "hint: {inputs: {student: 'student.hidden_states[0]', teacher: 'teacher.hidden_states[0]'}}"
    )
    stages = (
        f"stages=[{{name: layers, criteria: {{{of}}}}}, {{criteria: [hard_label, soft_target]}}]"
    )
    words = [*teacher, "criteria=[hint,hard_label,soft_target]", stages]
    answers = run("job=cache", *words) / "answers"
    # Not the last hidden states, which the term alone would read.
    assert {*AnswerStore(answers).answers} == {"hidden_states[0]", "logits"}
    assert report(run(*cached(words, answers)))["student"]["metrics"]


def test_the_newest_cache_is_taken_where_none_is_named(
    run,  # noqa: F811
    teacher,
    tmp_path,
    monkeypatch,
):
    run("job=cache", *teacher, "job.folder=runs/cache/one/answers")
    (tmp_path / "runs/cache/one/config.yaml").write_text("")
    folder = run(*[a for a in teacher if not a.startswith("teacher")], "teacher=cached")
    assert report(folder)["teacher"]["metrics"]


def test_without_a_cache_the_error_says_how_to_make_one(run, teacher, capsys):  # noqa: F811
    with pytest.raises(SystemExit):
        run(*[a for a in teacher if not a.startswith("teacher")], "teacher=cached")
    assert "write one with lightning-distill job=cache" in error(Path(), capsys)


def test_verify_compares_with_the_live_teacher(run, teacher, tmp_path, capsys):  # noqa: F811
    answers = run("job=cache", *teacher) / "answers"
    run("job=cache", "mode=verify", f"job.folder={answers}", *teacher)
    shown = capsys.readouterr().out
    assert "full float32" in shown
    assert "40 of 40 rows" in shown.replace("\n", " ") or "rows of" in shown
    # Another teacher.
    other = saved(tmp_path / "other", 1, ["bad", "good"], [text(i) for i in range(40)])
    with pytest.raises(SystemExit):
        run("job=cache", "mode=verify", f"job.folder={answers}", *teacher, f"teacher.path={other}")
    assert "made otherwise: by another teacher (fingerprint" in error(Path(), capsys)


def test_verify_notices_answers_that_are_off(run, teacher, capsys, monkeypatch):  # noqa: F811
    answers = run("job=cache", *teacher, "job.dtype=bfloat16") / "answers"
    run("job=cache", "job.mode=verify", f"job.folder={answers}", *teacher)
    # Rows that were answered by a teacher of other weights, under this one's name.
    path = Path(next(a for a in teacher if a.startswith("teacher.path=")).partition("=")[2])
    model = pretrained(str(path))
    with torch.no_grad():
        model.classifier.bias += 0.5
    model.save_pretrained(path)
    made = AnswerStore(answers).about["teacher"]["fingerprint"]
    teachers = importlib.import_module("lightning_distill.teachers.teacher")
    monkeypatch.setattr(teachers, "fingerprint", lambda model: made)
    with pytest.raises(SystemExit):
        run("job=cache", "mode=verify", f"job.folder={answers}", *teacher)
    assert "teacher.logits differs by 0.5" in error(Path(), capsys)


def test_a_killed_job_goes_on_and_leaves_the_files_of_an_uncut_one(teacher, tmp_path):
    uncut, cut = tmp_path / "uncut", tmp_path / "cut"
    arguments = [*SMALL, "job=cache", *teacher, *FEW]
    options = (tmp_path, environment(tmp_path))
    first = [*arguments, f"job.folder={uncut}", f"hydra.run.dir={tmp_path / 'a'}"]
    assert run_program(program(tmp_path), first, *options).returncode == 0
    second = [*arguments, f"job.folder={cut}", f"hydra.run.dir={tmp_path / 'b'}"]
    process = started(program(tmp_path), second, *options)
    while not list(cut.glob("shard-*.safetensors")) and process.is_alive():
        time.sleep(0.002)
    process.kill()
    process.join()
    written = {p.name: p.stat().st_mtime_ns for p in cut.glob("shard-*.safetensors")}
    assert run_program(program(tmp_path), second, *options).returncode == 0
    assert contents(cut) == contents(uncut)
    kept = [n for n, t in written.items() if (cut / n).stat().st_mtime_ns == t]
    assert len(kept) >= 1


def test_two_ranks_write_what_one_writes(teacher, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    for folder, more in zip(folders, ([], ddp), strict=True):
        arguments = [*SMALL, "job=cache", *teacher, *FEW, *more, f"job.folder={folder}"]
        arguments += [f"hydra.run.dir={tmp_path / 'run'}{len(more)}"]
        done = run_program(program(tmp_path), arguments, tmp_path, environment(tmp_path))
        assert done.returncode == 0, done.stderr
    assert contents(folders[0]) == contents(folders[1])


def test_a_folder_of_other_answers_is_refused(run, teacher, tmp_path, capsys):  # noqa: F811
    folder = f"job.folder={tmp_path / 'answers'}"
    run("job=cache", *teacher, folder)
    with pytest.raises(SystemExit):
        run("job=cache", *teacher, folder, "job.dtype=float16")
    words = error(Path(), capsys)
    assert "holds answers that were made otherwise" in words
    assert "float32" in words and "float16" in words
    before = contents(tmp_path / "answers")
    run("job=cache", *teacher, folder)
    assert contents(tmp_path / "answers") == before


def test_a_damaged_file_is_written_again(run, teacher, tmp_path, capsys):  # noqa: F811
    folder = tmp_path / "answers"
    run("job=cache", *teacher, *FEW, f"job.folder={folder}")
    before = contents(folder)
    path = folder / "shard-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(SystemExit):
        run("job=cache", "mode=verify", f"job.folder={folder}", *teacher)
    assert "shard-00001.safetensors in" in error(Path(), capsys)
    run("job=cache", *teacher, *FEW, f"job.folder={folder}")
    assert contents(folder) == before


def test_a_part_of_the_rows_is_found_and_other_rows_are_refused(
    run,  # noqa: F811
    teacher,
    tmp_path,
    capsys,
):
    answers = run("job=cache", *teacher) / "answers"
    # Rows in another order, some of them, some without a label; the tokenizer is the teacher's.
    lines = (tmp_path / "train.jsonl").read_text().splitlines()[29::-1]
    unlabelled = [json.dumps({"text": json.loads(line)["text"]}) for line in lines[:5]]
    (tmp_path / "train.jsonl").write_text("\n".join([*lines[5:], *unlabelled]) + "\n")
    assert report(run(*cached(teacher, answers)))["student"]["metrics"]
    (tmp_path / "train.jsonl").write_text(
        "\n".join([*lines, json.dumps({"text": "a film that is new", "label": "bad"})]) + "\n"
    )
    with pytest.raises(SystemExit):
        run(*cached(teacher, answers))
    words = error(Path(), capsys)
    assert "1 of 111 rows are not in the cache" in words
    assert "row 30 of the train data. The data differs." in words


def test_cut_rows_and_another_tokenizer_are_refused(run, teacher, tmp_path, capsys):  # noqa: F811
    answers = run("job=cache", *teacher) / "answers"
    with pytest.raises(SystemExit):
        run(*cached(teacher, answers), "data.max_length=4")
    assert "Preprocessing differs: max_length was 128 and is 4." in error(Path(), capsys)
    other = train_word_pieces(["quite other words are here"] * 3, 60, 32)
    other.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(SystemExit):
        run(*cached(teacher, answers), f"data.teacher_tokenizer={tmp_path / 'tokenizer'}")
    assert "was made with another tokenizer" in error(Path(), capsys)


def test_a_student_with_another_tokenizer_learns_from_a_cache(run, teacher, tmp_path):  # noqa: F811
    answers = run("job=cache", *teacher) / "answers"
    other = train_word_pieces(["quite other words are here"] * 3, 60, 32)
    other.save_pretrained(tmp_path / "tokenizer")
    own = f"data.tokenizer={tmp_path / 'tokenizer'}"
    live, kept = run(*teacher, own), run(*cached(teacher, answers), own)
    for role in ("teacher", "student"):
        ours, theirs = (report(folder)[role]["metrics"] for folder in (kept, live))
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_a_named_teacher_must_be_the_one_that_answered(run, teacher, tmp_path, capsys):  # noqa: F811
    answers = run("job=cache", *teacher) / "answers"
    other = saved(tmp_path / "other", 1, ["bad", "good"], [text(i) for i in range(40)])
    with pytest.raises(SystemExit):
        run(*cached(teacher, answers), f"teacher.path={other}")
    assert "holds the answers of another teacher than" in error(Path(), capsys)
    # The right one gives its layers to a student.
    path = next(a for a in teacher if a.startswith("teacher.path="))
    arguments = [a for a in cached(teacher, answers) if not a.startswith("student")]
    folder = run(*arguments, path, "student=from_teacher", "student.layers=1")
    assert report(folder)["student"]["parameters"] < report(folder)["teacher"]["parameters"]


@pytest.mark.parametrize("rounded", ["teacher.dtype=bfloat16", "teacher.quantization=int8"])
def test_a_teacher_in_fewer_bits_is_known_again(run, teacher, rounded):  # noqa: F811
    if "int8" in rounded:
        pytest.importorskip("torchao")
    answers = run("job=cache", *teacher, rounded) / "answers"
    path = next(a for a in teacher if a.startswith("teacher.path="))
    arguments = [a for a in cached(teacher, answers) if not a.startswith("student")]
    folder = run(*arguments, path, "student=from_teacher", "student.layers=1", "baseline=false")
    assert report(folder)["student"]["metrics"]


HIDDEN = [
    "criteria=[hard_label,soft_target,hint]",
    'criteria.hint.inputs.student="student.hidden_states[*]"',
    'criteria.hint.inputs.teacher="teacher.hidden_states[*]"',
    "criteria.hint.mapping=last",
    "student.num_hidden_layers=1",
]


def test_only_the_layers_that_are_compared_are_kept(run, teacher, capsys):  # noqa: F811
    answers = run("job=cache", *teacher, *HIDDEN, "job.hidden_dtype=float8") / "answers"
    kept = AnswerStore(answers).answers
    assert list(kept) == ["hidden_states[1]", "hidden_states[2]", "logits"] or len(kept) == 3
    assert kept["hidden_states[2]"].encoding.dtype == "float8"
    assert report(run(*cached(teacher, answers), *HIDDEN))["student"]["metrics"]
    with pytest.raises(SystemExit):
        run(
            *cached(teacher, answers),
            *HIDDEN,
            'criteria.hint.inputs.teacher="teacher.hidden_states[0]"',
            'criteria.hint.inputs.student="student.hidden_states[0]"',
            "criteria.hint.mapping=uniform",
        )
    assert "teacher.hidden_states[0] is not in the cache" in error(Path(), capsys)


def test_fewer_logits(run, tmp_path, capsys):  # noqa: F811
    names = ["a", "b", "c", "d", "e"]
    arguments = files(tmp_path, names * 8)
    path = saved(tmp_path / "teacher", 2, names, [text(i) for i in range(40)])
    teacher = [*arguments, "teacher=pretrained", f"teacher.path={path}", *SMALL_STUDENT]
    for logits in ("top_k", "sampled"):
        options = [f"job.logits={logits}", "job.k=2", "job.draws=50"]
        answers = run("job=cache", *teacher, *options) / "answers"
        run("job=cache", "mode=verify", f"job.folder={answers}", *teacher)
        assert report(run(*cached(teacher, answers)))["student"]["metrics"]
    with pytest.raises(SystemExit):
        run("job=cache", *teacher, "job.logits=top_k", "job.k=5")
    assert "top_k=5 leaves no tail of 5 classes" in error(Path(), capsys)


def test_caching_keeps_the_answers_while_a_student_learns(run, teacher, tmp_path):  # noqa: F811
    live = report(run(*teacher))
    path = next(a for a in teacher if a.startswith("teacher.path="))
    arguments = [a for a in teacher if not a.startswith("teacher")]
    folder = run(*arguments, "teacher=caching", path)
    assert report(folder)["student"]["metrics"] == pytest.approx(live["student"]["metrics"])
    assert len(CachedTeacher(folder / "answers").store) == 40
    again = run(*cached(teacher, folder / "answers"))
    assert report(again)["student"]["metrics"] == pytest.approx(live["student"]["metrics"])


MASKING = [f"data.augmentation={{_target_: {TokenMasking.__module__}.TokenMasking}}"]


def test_keyed_augmentation_is_kept_per_view(run, teacher, capsys):  # noqa: F811
    with pytest.raises(SystemExit):
        run("job=cache", *teacher, *MASKING)
    assert "data.views=N" in error(Path(), capsys)
    masking = [*MASKING, "data.views=2"]
    answers = run("job=cache", *teacher, *masking) / "answers"
    assert 80 < len(AnswerStore(answers)) <= 120
    live = report(run(*teacher, *masking, "trainer.max_epochs=4"))
    learnt = report(run(*cached(teacher, answers), *masking, "trainer.max_epochs=4"))
    assert learnt["student"]["metrics"] == pytest.approx(live["student"]["metrics"], abs=1e-6)
    # More views than were kept, and none.
    for views, words in (("3", "views was 2 and is 3"), ("null", "data.views=N")):
        with pytest.raises(SystemExit):
            run(*cached(teacher, answers), *MASKING, f"data.views={views}")
        assert words in error(Path(), capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["job.logits=topk"], "`logits` must be one of full, top_k, sampled"),
        (["job.dtype=half"], "`dtype` must be one of float32, bfloat16"),
        (["job.mode=check"], "`job.mode` must be write or verify"),
        (["job.batch_size=0"], "job.batch_size must be at least 1"),
        (["job.shard_mb=0"], "job.shard_mb must be positive"),
        (["teacher=cached", "teacher.path=null", "~teacher.dtype"], "There is no cache in"),
    ],
)
def test_what_cannot_be_is_refused(run, teacher, capsys, arguments, words):  # noqa: F811
    if "teacher=cached" in arguments:
        teacher, arguments = [a for a in teacher if not a.startswith("teacher")], arguments[:2]
    with pytest.raises(SystemExit):
        run("job=cache", *teacher, *arguments)
    assert words in error(Path(), capsys)
