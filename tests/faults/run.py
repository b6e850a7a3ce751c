"""Try every fault, or those of some kinds, and write what came of it into README.md.

    python tests/faults/run.py            # all
    python tests/faults/run.py kills      # one kind; the others keep what they had

What was tried is kept in a file of records, so that a run that is cut off goes on: a case is tried
again only with --again.
"""

import argparse
import importlib
import json
import logging
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]
sys.path = [p for p in sys.path if Path(p or ".").resolve() != HERE]
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

KINDS = ["kills", "saves", "corruption", "disks", "not_finite", "ranks", "configurations"]
KINDS += ["mismatches", "data", "gadgets", "ordinary"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", help="all, if none is named")
    parser.add_argument("--again", action="store_true", help="what was tried before, too")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--quick", action="store_true", help="those of the ordinary tests only")
    parser.add_argument("--records", type=Path, default=Path("runs/faults"))
    parser.add_argument("--table", type=Path, default=HERE / "README.md")
    given = parser.parse_args()
    # Each command is forked of a process that has imported what it needs.
    import processes  # noqa: F401
    from faults.case import tried
    from faults.table import write_table

    more = ["lightning_distill.jobs", "lightning_distill.main", "faults.moments"]
    multiprocessing.set_forkserver_preload(_preloaded(more))
    # What the product says is looked at by the cases.
    logging.getLogger("lightning_distill").setLevel(logging.CRITICAL)
    given.records.mkdir(parents=True, exist_ok=True)
    for kind in given.kinds or KINDS:
        cases = importlib.import_module(f"faults.{kind}").cases()
        record = given.records / f"{kind}.jsonl"
        if given.again and not (given.only or given.quick):
            record.unlink(missing_ok=True)
        known = read(record)
        for number, case in enumerate(cases, 1):
            left_out = given.only not in case.name or (given.quick and not case.quick)
            if left_out or (case.name in known and not given.again):
                continue
            folder = Path(tempfile.mkdtemp(prefix="faults-case-"))
            outcome = tried(case, folder)
            shutil.rmtree(folder, ignore_errors=True)
            known[case.name] = outcome.row()
            with record.open("a") as file:
                file.write(json.dumps(outcome.row()) + "\n")
            if outcome.verdict != "right" or len(cases) < 300 or number % 50 == 0:
                said = f"{outcome.verdict} {outcome.seconds} s {outcome.words}"
                print(f"{kind} {number}/{len(cases)} {case.name}: {said}", flush=True)
        # A case that is no more does not count.
        names = {case.name for case in cases}
        left = [row for name, row in known.items() if name in names]
        record.write_text("".join(json.dumps(row) + "\n" for row in left))
        write_table(given.table, recorded(given.records), _machine())


def recorded(records: Path) -> dict[str, list[dict]]:
    """What was tried of each kind."""
    return {kind: list(read(records / f"{kind}.jsonl").values()) for kind in KINDS}


def read(record: Path) -> dict[str, dict]:
    """The newest outcome of each case."""
    if not record.is_file():
        return {}
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    return {row["name"]: row for row in rows}


def _preloaded(more: list[str]) -> list[str]:
    from processes import MODELS, PRELOADED

    return f"{PRELOADED} {MODELS}".split() + more


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.machine()
    packages = ("torch", "lightning", "transformers", "hydra-core")
    return ", ".join([cpu, *(f"{name} {version(name)}" for name in packages)])


if __name__ == "__main__":
    main()
