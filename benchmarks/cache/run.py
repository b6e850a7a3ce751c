"""Answers that are larger than memory: what it costs to open them and to read rows at random.

    python benchmarks/cache/run.py                   # 20 million rows of 64 logits in float16
    python benchmarks/cache/run.py --rows 1000000

The rows are written by numpy, without a teacher, in the format that job=cache writes, into a
temporary folder that is removed. A process of its own opens them and reads 2,000 batches of 32 rows
at random; each row is compared with what was written. Resident memory is that of
/proc/self/status: all (VmRSS), and without pages of files, which the system takes back when it
needs them (RssAnon). `Cold` is after the system was asked to forget the files.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from lightning_distill.cache import Answer, AnswerStore, Full, write_manifest
from lightning_distill.cache.answer import signature
from lightning_distill.cache.shard import write_shard
from lightning_distill.cache.shard_writer import row_checksums

CLASSES, PER_SHARD = 64, 262_144
ANSWER = Answer("logits", False, (CLASSES,), Full("float16"))


def ids_of(rows: np.ndarray) -> np.ndarray:
    """Ids as even as digests are, (rows, 2), from the numbers of rows."""
    with np.errstate(over="ignore"):
        found = []
        for salt in (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03):
            x = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(salt)
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
            found.append((x ^ (x >> np.uint64(31))).view(np.int64))
    return np.stack(found, axis=1)


def values_of(rows: np.ndarray) -> np.ndarray:
    """Logits of these rows, (rows, 64), which float16 holds as they are."""
    return ((rows[:, None] * 37 + np.arange(CLASSES) * 11) % 2039 - 1019).astype(np.float16)


def write(folder: Path, rows: int) -> None:
    facts = []
    for number, start in enumerate(range(0, rows, PER_SHARD)):
        own = np.arange(start, min(start + PER_SHARD, rows))
        ids, values = ids_of(own), torch.from_numpy(values_of(own))
        crc = row_checksums(ids, [values], [1] * len(own), ANSWER.mark(""))
        columns = {
            "id": torch.from_numpy(ids),
            "tokens": torch.zeros(len(own) + 1, dtype=torch.int64),
            "logits/values": values,
            "logits/crc": torch.tensor(crc),
        }
        written = write_shard(folder / f"shard-{number:05d}.safetensors", columns)
        facts.append(written | {"rows": len(own), "of": signature("", [ANSWER])})
    write_manifest(folder, {}, [ANSWER], facts)


def memory() -> tuple[float, float]:
    """VmRSS and RssAnon, in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))  # type: ignore[return-value]


def forget(folder: Path) -> None:
    """Ask the system to drop the files from its memory."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read(folder: Path, rows: int, batches: int) -> None:
    """Open and read at random; prints what was found as JSON."""
    torch.set_num_threads(1)
    memories, found = {}, {}
    for state in ("cold", "warm"):
        if state == "cold":
            forget(folder)
        memories[f"{state} before"] = memory()
        start = time.perf_counter()
        store = AnswerStore(folder)
        found[f"{state} open"] = time.perf_counter() - start
        generator = np.random.default_rng(0)
        times, most = [], (0.0, 0.0)
        for batch in range(batches):
            numbers = generator.integers(0, rows, 32)
            ids = ids_of(numbers)
            start = time.perf_counter()
            places = store.find(ids)
            values, _ = store.read(ids, places, ["logits"])
            times.append(time.perf_counter() - start)
            right = torch.from_numpy(values_of(numbers).astype(np.float32))
            if not torch.equal(values["logits"], right):
                raise SystemExit(f"batch {batch} is not what was written")
            if batch == batches // 10:
                memories[f"{state} a tenth"] = memory()
            most = tuple(map(max, most, memory()))
        memories[f"{state} all"] = memory()
        memories[f"{state} most"] = most
        found[f"{state} mean"] = statistics.mean(times)
        found[f"{state} median"] = statistics.median(times)
        size = store.bytes
        del store
    print(json.dumps({"memories": memories, "found": found, "bytes": size}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--batches", type=int, default=2_000)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(Path(options.read), options.rows, options.batches)
        return
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write(Path(folder), options.rows)
        print(f"written in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        command = [sys.executable, __file__, "--read", folder]
        command += ["--rows", str(options.rows), "--batches", str(options.batches)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    found, memories = result["found"], result["memories"]
    size = result["bytes"] / 1e9
    print(f"{options.rows:,} rows, {size:.2f} GB, {options.batches:,} batches of 32\n")
    print("| | open | a batch, mean | median | RSS before | a tenth read | all read | largest |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for state in ("cold", "warm"):
        cells = [
            f"{found[f'{state} open'] * 1e3:.0f} ms",
            *(f"{found[f'{state} {name}'] * 1e6:,.0f} µs" for name in ("mean", "median")),
            *(
                f"{memories[f'{state} {at}'][0]:.0f} MB ({memories[f'{state} {at}'][1]:.0f})"
                for at in ("before", "a tenth", "all", "most")
            ),
        ]
        print(f"| {state} | {' | '.join(cells)} |")
    print("\nIn brackets: without pages of files (RssAnon).")


if __name__ == "__main__":
    main()
