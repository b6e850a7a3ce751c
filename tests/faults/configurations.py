"""A command that cannot be meant: one line that says so before anything begins."""

from functools import partial
from pathlib import Path

from faults.case import Case
from faults.compared import at, check_words
from faults.job import command, JOB

TITLE = "Configurations that cannot be meant"
SOFT = "criteria.soft_target"
LAYERS = "criteria=[intermediate_layers]"
MAPPINGS = "criteria.intermediate_layers.layer_mappings"
# What is typed after a command that is right.
MISTYPED = [
    "sed=3", "data.trian=x.tsv", "trainer.max_epoch=3", "student.hidden=3", "optimizer.rate=1",
    "teacher.pth=x", "data=text_file", "teacher=pretraind", "student=from_confg", "trainer=dpp",
    "criteria=[soft_targt]", "criteria=[hard_label,kl]", "metrics=[acuracy]", "optimizer=adam2",
    "scheduler=cosin", "callbacks=[best]", "logger=[cvs]", "job=distil", "module=distilation",
    "balance=gradnorm", "experiment=sst3", "data=", "criteria=hard_label,", "criteria=[",
    "trainer.max_epochs=[", "student={", "=3", "criteria=null", "metrics=null", "callbacks=null",
]  # fmt: skip
VALUES = [
    f"{SOFT}.criterion.temperature=0", f"{SOFT}.criterion.temperature=-1",
    f"{SOFT}.criterion.temperature=nan", f"{SOFT}.criterion.temperature=warm",
    f"{SOFT}.weight=-1", f"{SOFT}.weight=nan", f"{SOFT}.weight=heavy", f"{SOFT}.weight=inf",
    "criteria.hard_label.weight=-0.5", "criteria.hard_label.weight=[]",
    "trainer.max_epochs=0", "trainer.max_epochs=-3", "trainer.max_epochs=many",
    "trainer.max_epochs=1.5", "trainer.devices=0", "trainer.devices=-2", "trainer.devices=two",
    "trainer.accelerator=quantum", "trainer.strategy=alone", "trainer.precision=7",
    "trainer.precision=half", "trainer.accumulate_grad_batches=0",
    "trainer.accumulate_grad_batches=-1", "trainer.accumulate_grad_batches=x",
    "trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=x",
    "trainer.log_every_n_steps=x", "+trainer.val_check_interval=0",
    "+trainer.val_check_interval=-1", "+trainer.val_check_interval=1000",
    "+trainer.limit_train_batches=0", "+trainer.nonsense=3", "trainer.max_steps=-2",
    "trainer.max_steps=x", "optimizer.lr=-1", "optimizer.lr=0", "optimizer.lr=nan",
    "optimizer.lr=fast", "optimizer.weight_decay=-1", "data.batch_size=0", "data.batch_size=-4",
    "data.batch_size=x", "data.eval_batch_size=0", "data.max_length=0", "data.max_length=-1",
    "data.max_length=x", "data.validation_fraction=2", "data.labelled_rows=-1",
    "data.labelled_rows=x", "data.train=nowhere.tsv", "data.test=nowhere.tsv",
    "data.validation=nowhere.tsv", "data.train=null", "data.text=words", "data.label=answer",
    "data.task=guessing", "data.tokenizer=nowhere", "data.num_workers=-1", "data.views=0",
    "seed=x", "seed=-1", "monitor=val/nothing", "monitor=test/accuracy", "mode=up",
    "max_metric_drop=-1", "metric_drop=some", "num_labels=7", "task=guessing",
    "teacher.path=nowhere", "teacher.path=train.tsv", "teacher.path=null", "teacher.dtype=int3",
    "teacher.quantization=int1", "teacher.auto_class=AutoNothing",
    "student.hidden_size=0", "student.hidden_size=15", "student.num_attention_heads=0",
    "student.num_attention_heads=3", "student.num_hidden_layers=-1", "student.model_type=brt",
    "student.model_type=null", "student.max_position_embeddings=2", "student.hidden_size=x",
    "student._target_=nothing.at_all", "student._target_=os.getcwd", "student._target_=null",
    "+criteria.mine={_target_: mine.Mine}", "+criteria.mine=3",
    "optimizer._target_=torch.optim.Adm",
    "callbacks.last_checkpoint.every_n_train_steps=0", "callbacks.best_checkpoint.save_top_k=-2",
    "allow_targets=x", "resume=nowhere", "resume=train.tsv", "student@student=nothing",
]  # fmt: skip
SEVERAL = [
    [LAYERS, f"{MAPPINGS}=[[no.such,bert.encoder.layer.0]]"], [LAYERS, f"{MAPPINGS}=[]"],
    [LAYERS, f"{MAPPINGS}=[[bert.encoder.layer.0,bert.encoder.layer.9]]"],
    [LAYERS, f"{MAPPINGS}=3"], ["~teacher", "criteria=[soft_target]"], ["criteria=[]"],
    ["student=from_teacher", "student.layers=9"], ["student=from_teacher", "student.layers=0"],
    ["student=from_teacher", "student.keep=best"], ["student=pretrained"],
    ["teacher=cached"], ["job=cache", "teacher=trained", "teacher.max_epochs=0"],
    ["job=evaluate", "job.path=nowhere"], ["job=export", "job.run=nowhere"],
    ["job=inspect", "job.path=nowhere"], ["hparams_search=grid"],
]  # fmt: skip
# Which may be right as well, and then the run ends well.
MAY_BE_RIGHT = {
    "trainer.max_epochs=0", "optimizer.lr=0", "trainer.gradient_clip_val=-1",
    "student.num_hidden_layers=-1", "seed=-1", "data.validation_fraction=2", "data.views=0",
    "student.max_position_embeddings=2", "data.max_length=x", "teacher.auto_class=AutoNothing",
    "allow_targets=x",
}  # fmt: skip
QUICK = {"sed=3", f"{SOFT}.criterion.temperature=0", "data.train=nowhere.tsv"}


def cases() -> list[Case]:
    ways = [(one, [one]) for one in (*MISTYPED, *VALUES)]
    ways += [(" ".join(more), more) for more in SEVERAL]
    return [Case(f"typed: {n}", partial(_refused, more=m), n in QUICK) for n, m in ways]


def _refused(folder: Path, more: list[str]) -> None:
    base = [a for a in JOB if not a.startswith("student.")] if "student=" in more[0] else JOB
    base = [a for a in base if not (more[0].startswith("resume=") or _of_teacher(a, more[0]))]
    ended = command([*base, at(folder / "run"), *more], seconds=60)
    if ended.code == 0 and more[0] in MAY_BE_RIGHT:
        return
    check_words(ended)
    said = [s for s in ended.err.splitlines() if "error:" in s]
    assert len(said) == 1, f"{len(said)} errors: {said}"
    # Of a process that has imported its libraries; the machine may be busy.
    assert not list((folder / "run").glob("checkpoints/*.ckpt")), "it had begun to train"


def _of_teacher(argument: str, typed: str) -> bool:
    return argument.startswith("teacher.") and typed in ("~teacher", "teacher=cached")
