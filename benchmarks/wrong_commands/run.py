"""Type a hundred commands that are wrong: each shall be told so in one line, and soon.

Every command is a new process, as a user's shell starts it.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = "data=text_files data.train=train.csv data.validation=dev.csv"
SOFT = "criteria.soft_target"
COMMANDS = f"""
sed=3
+sed=3
see=1
loss=kl
experiment=nothing
job=distil
job=train
data=csv
data=text_file
data=train.csv
student=from_confg
student=bert
teacher=pretraned
teacher=model
teacher.path=model
student.path=model
student.nothing=3
trainer=gpu
trainer=dpp
trainer.epochs=3
trainer.max_epoch=3
trainer.max_epochs=
optimizer=adam
optimizer.rate=0.1
scheduler=cosin
metrics=[acc]
metrics=accuracy2
criteria=[soft_targt]
criteria=[kl]
criteria=soft_target,
criteria=[hard_label
criteria=null
criteria=[]
criteria.hint.weight=1
{SOFT}.weigth=1
{SOFT}.temperature=2
callbacks=[early_stoping]
callbacks.early_stopping.patience=3
logger=[wandbb]
module=onpolicy
balance=gradnorm
~nothing
--halp
--config job
seed
=3
seed=
seed=x
seed=-1
seed=1.5
trainer.max_epochs=0
trainer.max_epochs=three
trainer.max_epochs=-5
trainer.max_steps=0
trainer.devices=0
trainer.devices=two
trainer.accelerator=gpux
trainer.strategy=ddpp
trainer.precision=half
trainer.precision=7
trainer.accumulate_grad_batches=0
trainer.gradient_clip_val=-1
trainer.log_every_n_steps=0
+trainer.check_val_every_n_epoch=0
optimizer.lr=0
optimizer.lr=-1
optimizer.lr=fast
optimizer.weight_decay=-1
{SOFT}.criterion.temperature=0
{SOFT}.criterion.temperature=-2
{SOFT}.criterion.temperature=hot
+{SOFT}.criterion.temprature=2
{SOFT}.weight=-1
{SOFT}.weight=much
criteria.hard_label.criterion.label_smoothing=2
student.hidden_size=97
student.hidden_size=0
student.num_hidden_layers=-1
student.num_attention_heads=x
mode=up
metric_drop=some
max_metric_drop=-1
baseline=maybe
compile=2
profile=on_gpu
hang_seconds=0
data=text_files
data=text_files data.train=trian.csv
data=text_files data.train=[train.csv,nothing.csv]
data=text_files data.train=*.tsv
data=text_corpus data.train=nowhere
{FILES} data.validation=dev.cvs
{FILES} data.test=nowhere.csv
{FILES} data.batch_size=0
{FILES} data.max_length=1
{FILES} data.validation_fraction=3
{FILES} data.columns=text data.colums=x
{FILES} teacher=pretrained
{FILES} teacher=pretrained teacher.path=modle
{FILES} teacher=pretrained teacher.path=./nowhere
{FILES} teacher=pretrained teacher.path=train.csv
{FILES} student=pretrained student.path=~/nowhere
data.packages=0
data.packages=many
resume=nowhere
resume=train.csv
job=evaluate job.path=./nowhere
job=export job.run=nowhere
job=cache job.run=nowhere
job=inspect job.run=nowhere
hparams_search=grid
hparams_search=gird
-m resume=nowhere seed=1,2
-m trainer.devices=2 seed=1,2
job.checkpoint=a(1).ckpt
student._target_=os.getcwd
data._target_=subprocess.run
teacher._target_=nothing.at_all
job._target_=shutil.rmtree
allow_targets=[a b]
""".strip().splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="commands that hold this")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        commands = [command for command in COMMANDS if given.only in command]
        tried(folder, "--help")  # what is read from disk once
        for command in commands:
            row = tried(folder, command)
            rows.append(row)
            print(
                f"{row['seconds']:5.1f} s  {row['verdict']}  {command}: {row['said']}", flush=True
            )
    seconds = [row["seconds"] for row in rows]
    wrong = [row for row in rows if row["verdict"] != "right"]
    print(
        f"{len(rows)} commands, {len(wrong)} of them not met as they should be; median "
        f"{statistics.median(seconds):.1f} s, longest {max(seconds):.1f} s, "
        f"{sum(s > 3 for s in seconds)} above 3 s"
    )
    if not given.only:
        result = {"machine": machine(), "commands": rows}
        (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")


def prepare(folder: Path) -> None:
    for name in ("train.csv", "dev.csv"):
        lines = [f"a film {i},{'good' if i % 2 else 'bad'}" for i in range(40)]
        (folder / name).write_text("\n".join(["text,label", *lines]))
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")


def tried(folder: str, command: str) -> dict:
    program = Path(sys.executable).with_name("lightning-distill")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HOME": folder}
    begun = time.monotonic()
    done = subprocess.run(
        [program, *split(command)], cwd=folder, env=environment, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip
    seconds = time.monotonic() - begun
    lines = [line for line in done.stderr.splitlines() if "error:" in line]
    verdict = "right"
    if done.returncode == 0:
        verdict = "not refused"
    elif "Traceback" in done.stderr + done.stdout:
        verdict = "a traceback"
    elif len(lines) != 1:
        verdict = f"{len(lines)} errors"
    elif list(Path(folder).rglob("*.ckpt")):
        verdict = "had begun to train"
    said = lines[0].partition("error: ")[2] if lines else done.stderr[-200:]
    said = said.replace(folder, "HOME")
    return {"command": command, "verdict": verdict, "seconds": round(seconds, 1), "said": said}


def split(command: str) -> list[str]:
    # A list of names with a blank is one word here.
    return [command] if command.endswith("[a b]") else command.split()


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
