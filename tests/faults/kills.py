"""A run is killed at a moment and resumed: it ends as the one that nothing happened to."""

from functools import partial
from pathlib import Path

import pytest
from faults.case import Case
from faults.compared import check_equal, gone_on, uncut
from faults.job import command, JOB, LANGUAGE, on_two_ranks, STEPS, TINY
from faults.moments import after, at_hook, some

TITLE = "SIGKILL at a moment, resumed, compared with the uncut run"
PLAIN = (*JOB, "+student.hidden_dropout_prob=0", "+student.attention_probs_dropout_prob=0")
MORE = (*JOB, "scheduler=cosine", "trainer.accumulate_grad_batches=3", "trainer.max_epochs=3")
FEW_STEPS = (*JOB, "trainer.max_steps=6", "+trainer.val_check_interval=2")
OWN_TEACHER = (*TINY, "teacher.model.hidden_size=16", "teacher.model.num_hidden_layers=1")
OWN_TEACHER += ("teacher.max_epochs=2", "teacher.model.num_attention_heads=2")
AVERAGED = (*JOB, "callbacks=[best_checkpoint,last_checkpoint,finite_loss,weight_average]")
LOGIT_STEPS = (*JOB, "optimizer=dot")
ON_POLICY = (*LANGUAGE, "module=on_policy", "module.prompt_tokens=4", "module.max_new_tokens=4")
ON_POLICY += ("module.student_fraction=0.7", "module.replay_size=8", "module.replay_fraction=0.5")
ON_POLICY += ("data.packing=false", "baseline=false")
STREAM = (*LANGUAGE, "data.streaming=true", "data.shuffle_rows=8", "trainer.max_steps=6")


def cut(folder: Path, arguments: tuple[str, ...], *faults, ranks: int = 1) -> None:
    """Run, cut off by each of the faults in turn, and to the end."""
    whole, run = uncut(arguments, ranks), folder / "run"
    kept = {"LIGHTNING_DISTILL_CACHE": str(folder / "cache")}
    struck, missed = 0, False
    for fault in (*faults, None):
        typed = gone_on(arguments, run)
        if ranks == 2:
            by_rank = {} if fault is None else {struck % 2: fault}
            ended = on_two_ranks([*typed], by_rank, environment=kept)
        else:
            ended = command(typed, fault, environment=kept)
        if fault is None:
            assert ended.code == 0, f"did not go on: {ended.code} {ended.said[-400:]}"
        else:
            struck += 1
            assert ended.code is not None, "it still ran after it was killed"
            missed = missed or ended.code == 0
    check_equal(run, whole)
    if missed:
        pytest.skip("the run had ended before that moment")


def cases() -> list[Case]:
    found = []

    def add(name, arguments, *faults, quick=False, ranks=1):
        attempt = partial(_cut, arguments=arguments, faults=faults, ranks=ranks)
        found.append(Case(name, attempt, quick))

    both = 4 * STEPS  # of the student and of the student alone
    for n in range(1, both - 1):
        hook = ("on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end")[n % 3]
        add(f"with dropout, {hook} {n}", tuple(JOB), partial(at_hook, hook, n), quick=n == 6)
    for n in range(1, both + 1):
        hook = ("on_after_backward", "on_train_batch_end", "on_train_batch_start")[n % 3]
        add(f"without dropout, {hook} {n}", PLAIN, partial(at_hook, hook, n))
    for n in range(1, 5):
        for hook in ("on_train_epoch_start", "on_train_epoch_end", "on_train_end"):
            if hook != "on_train_end" or n < 3:
                add(f"at an epoch's edge, {hook} {n}", tuple(JOB), partial(at_hook, hook, n))
    for n in range(1, 6):
        for hook in ("on_validation_batch_end", "on_validation_epoch_end"):
            add(f"in validation, {hook} {n}", tuple(JOB), partial(at_hook, hook, n))
    add("in the test", tuple(JOB), partial(at_hook, "on_test_batch_end", 1))
    add("in the test of the baseline", tuple(JOB), partial(at_hook, "on_test_batch_end", 2))
    for n in (1, 2, 5, 8, 9, 10, 12, 13, 20, 23):
        name = f"dropout, cosine, accumulation, on_train_batch_end {n}"
        add(name, MORE, partial(at_hook, "on_train_batch_end", n))
    for n in (1, 3, 4, 6, 8, 11):
        fault = partial(at_hook, "on_train_batch_end", n)
        add(f"max_steps and validation within the epoch, step {n}", FEW_STEPS, fault)
    for n in (1, 4, 5, 8, 9, 14, 20):
        fault = partial(at_hook, "on_train_batch_end", n)
        add(f"teacher=trained, step {n}", OWN_TEACHER, fault)
    for n in (2, 5, 11):
        fault = partial(at_hook, "on_train_batch_end", n)
        add(f"weight average, step {n}", AVERAGED, fault)
        add(f"optimizer=dot, step {n}", LOGIT_STEPS, fault)
    for n in (2, 4, 7):
        fault = partial(at_hook, "on_train_batch_end", n)
        add(f"on-policy, step {n}", ON_POLICY, fault)
    for n in (1, 3, 5, 9):
        fault = partial(at_hook, "on_train_batch_end", n)
        add(f"a stream of texts, step {n}", STREAM, fault)
    for n in range(8):
        add(f"at a random moment {n}", tuple(JOB), partial(after, some(n, 0.3, 2.5)))
    for n in (2, 5, 10):
        faults = (partial(at_hook, "on_train_batch_end", m) for m in (n, 3, 2))
        add(f"three times, from step {n}", tuple(JOB), *faults)
    for n in (1, 3, 5, 6):
        fault = partial(at_hook, "on_train_batch_end", n)
        add(f"one of two processes, step {n}", tuple(JOB), fault, ranks=2)
    return found


def _cut(folder: Path, arguments, faults, ranks) -> None:
    cut(folder, arguments, *faults, ranks=ranks)
