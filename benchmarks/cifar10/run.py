"""CIFAR-10: a row of neural-compressor's table, WideResNet-40-2 -> MobileNetV2 0.35 wide.

    python benchmarks/cifar10/run.py --data FOLDER --output benchmarks/cifar10/results.json
    python benchmarks/cifar10/run.py --small --data FOLDER      # one CPU core, a quarter of an hour

FOLDER holds train/CLASS/NAME.jpg and test/CLASS/NAME.jpg, or an archive `*.tar.xz` of them. A
teacher is trained once; its students learn alone and with it, for as many steps. Every command is
`lightning-distill`. `--small` takes a smaller teacher, and fewer pictures and epochs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import ttest_rel

HERE = Path(__file__).parent
NAMES = {"teacher": "teacher", "baseline": "student alone", "student": "student distilled"}


@dataclass(frozen=True)
class Setting:
    """How much is done.

    Attributes:
        depth: of the teacher, a wide residual network.
        width: of the teacher.
        teacher_epochs: how long it is trained.
        epochs: how long its students learn.
        pictures: how many of each class are taken for training; `None` is all.
        tests: the same of the test.
        more: further overrides of all commands.
    """

    depth: int = 40
    width: int = 2
    teacher_epochs: int = 200
    epochs: int = 200
    pictures: int | None = None
    tests: int | None = None
    more: tuple[str, ...] = ()


# With fewer pictures a smaller batch, so that there are more steps.
SMALL = Setting(16, 1, 12, 10, 250, 100, ("trainer.accelerator=cpu", "data.batch_size=64"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("LIGHTNING_DISTILL_DATA", ".")) / "cifar10"
    parser.add_argument("--data", type=Path, default=default, help="folder of the pictures")
    parser.add_argument("--small", action="store_true", help="for one CPU core")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    setting = SMALL if options.small else Setting()
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shared = ["experiment=cifar10", f"data_dir={pictures(options.data, folder, setting)}"]
        shared += setting.more
        network = [f"depth={setting.depth}", f"width={setting.width}"]
        made = ["~student", "+student._target_=wide_resnet.WideResNet"]
        made += [f"+student.{one}" for one in network]
        epochs = f"trainer.max_epochs={setting.teacher_epochs}"
        run(folder / "teacher", "job=finetune", *shared, *made, "optimizer.lr=0.1", epochs)
        teacher = ["~teacher", "+teacher._target_=wide_resnet.trained"]
        teacher += [f"+teacher.weights={folder}/teacher/student/model.safetensors"]
        teacher += [f"+teacher.{one}" for one in network]
        epochs = f"trainer.max_epochs={setting.epochs}"
        for seed in range(options.seeds):
            report = run(folder / f"seed{seed}", *shared, *teacher, epochs, f"seed={seed}")
            for name, values in found.items():
                values.append(100 * report[name]["metrics"]["accuracy"])
            print(f"seed {seed}:", {name: round(v[-1], 2) for name, v in found.items()}, flush=True)
    show(found)
    if options.output:
        kept = {"small": options.small, "accuracy": found}
        options.output.write_text(json.dumps(kept, indent=2) + "\n")


def pictures(data: Path, scratch: Path, setting: Setting) -> Path:
    """The folder of the pictures, with as many of each class as are wanted."""
    most = {"train": setting.pictures, "test": setting.tests}
    there = (data / "train").is_dir()
    if there and setting.pictures is None:
        return data
    chosen = scratch / "pictures"
    if there:
        for split in most:
            for kind in sorted((data / split).iterdir()):
                (chosen / split / kind.name).mkdir(parents=True)
                for file in sorted(kind.iterdir())[: most[split]]:
                    (chosen / split / kind.name / file.name).symlink_to(file.absolute())
        return chosen
    archives = sorted(data.glob("*.tar.xz"))
    if not archives:
        sys.exit(f"{data} holds neither a folder train nor an archive *.tar.xz (--data FOLDER).")
    counts: dict[Path, int] = {}
    with tarfile.open(archives[0]) as packed:
        for member in packed:
            path = Path(member.name)
            if not member.isfile() or path.parts[0] not in most:
                continue
            counts[path.parent] = counts.get(path.parent, 0) + 1
            limit = most[path.parts[0]]
            if limit is None or counts[path.parent] <= limit:
                packed.extract(member, chosen, filter="data")
    return chosen


def run(folder: Path, *overrides: str) -> dict:
    command = [
        sys.executable,
        "-m",
        "lightning_distill.main",
        *overrides,
        f"hydra.run.dir={folder}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    report = folder / "report.json"
    return json.loads(report.read_text()) if report.is_file() else {}


def show(found: dict[str, list[float]]) -> None:
    print("| | accuracy | seeds |\n|---|---|---|")
    for name, values in found.items():
        seeds = " ".join(f"{value:.1f}" for value in values)
        spread = statistics.stdev(values) if values[1:] else float("nan")
        print(f"| {NAMES[name]} | {statistics.mean(values):.2f} ± {spread:.2f} | {seeds} |")
    if len(found["student"]) > 1:
        pairs = [a - b for a, b in zip(found["student"], found["baseline"], strict=True)]
        p = ttest_rel(found["student"], found["baseline"]).pvalue
        spread = statistics.stdev(pairs)
        print(f"paired difference {statistics.mean(pairs):.2f} ± {spread:.2f}, p={p:.2g}")


if __name__ == "__main__":
    main()
