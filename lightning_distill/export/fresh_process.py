"""Files that were written are read by a process that knows nothing of this package."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Case = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
# Of each program: what it imports, and `load(path, options)`, which gives a function of inputs,
# and `arrays`, `save` of files of safetensors.
_OF_TORCH = """
import torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(THREADS)
def load(path, options):
    return torch.export.load(path).module()
def call(model, inputs):
    with torch.no_grad():
        return {name: value.float().clone().contiguous() for name, value in model(**inputs).items()}
"""
_OF_TRANSFORMERS = """
import torch, transformers
from safetensors.torch import load_file, save_file
torch.set_num_threads(THREADS)
def load(path, options):
    trusted = options["trusted"]
    for processor in options["processors"]:
        getattr(transformers, processor).from_pretrained(path, trust_remote_code=trusted)
    model = getattr(transformers, options["model"]).from_pretrained(path, dtype="auto").eval()
    # As in the answers that are expected: with a cache, documents of one row are not kept apart.
    model.config.use_cache = False
    return model
def call(model, inputs):
    with torch.no_grad():
        found = model(**inputs).items()
    return {n: v.float().clone().contiguous() for n, v in found if isinstance(v, torch.Tensor)}
"""
_OF_ONNX = """
import numpy, onnxruntime
from safetensors.numpy import load_file, save_file
def load(path, options):
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads, chosen.inter_op_num_threads = THREADS, 1
    return onnxruntime.InferenceSession(path, chosen, providers=["CPUExecutionProvider"])
def call(session, inputs):
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, inputs)
    return {n: numpy.ascontiguousarray(v, numpy.float32) for n, v in zip(names, values)}
"""
PROGRAMS = {"transformers": _OF_TRANSFORMERS, "torch": _OF_TORCH, "onnxruntime": _OF_ONNX}
# What each of them does without.
WITHOUT = {
    "transformers": ("lightning_distill",),
    "torch": ("lightning_distill", "transformers", "onnxruntime"),
    "onnxruntime": ("lightning_distill", "transformers", "torch", "onnx"),
}
_MAIN = """
import json, pathlib, statistics, sys, time
folder, THREADS = pathlib.Path(sys.argv[1]), int(sys.argv[2])
{program}
said = []
for entry in json.loads((folder / "files.json").read_text(encoding="utf-8")):
    try:
        model = load(entry["path"], entry["options"])
        for inputs in entry["inputs"]:
            found = call(model, load_file(folder / inputs))
            save_file(found, folder / inputs.replace("inputs", "outputs"))
        one = {{name: value[:1] for name, value in load_file(folder / entry["inputs"][0]).items()}}
        times = []
        for i in range(entry["runs"] + 5):
            start = time.perf_counter()
            call(model, one)
            times.append(time.perf_counter() - start)
        took = 1000 * statistics.median(times[5:])
        said.append({{"latency_ms": took}})
    except Exception as error:
        said.append({{"error": f"{{type(error).__name__}}: {{error}}"[:2000]}})
loaded = [name for name in {without} if name in sys.modules]
assert not loaded, loaded
(folder / "said.json").write_text(json.dumps(said), encoding="utf-8")
"""


@dataclass
class File:
    """A file that is read in a fresh process.

    Attributes:
        path: of the file, or of the folder.
        cases: inputs, and the answers that are expected to them.
        options: of what loads it.
    """

    path: Path
    cases: Sequence[Case]
    options: Mapping[str, Any]


@dataclass
class Read:
    """What a fresh process has found in a file.

    Attributes:
        answers: to the inputs of each case.
        latency_ms: median time of one row.
        error: why it could not be read, or run.
    """

    answers: list[dict[str, Tensor]]
    latency_ms: float | None = None
    error: str | None = None


def read_in_a_fresh_process(program: str, files: Sequence[File], runs: int = 30) -> list[Read]:
    """Load files and run them on inputs, where this package is not imported.

    Args:
        program: `transformers`, `torch` or `onnxruntime`: what loads them.
        files: one process reads them all.
        runs: how often one row is run for its time.

    Raises:
        ValueError: if the process itself comes to nothing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        listed: list[dict[str, Any]] = []
        for i, file in enumerate(files):
            names = [f"inputs-{i}-{j}.safetensors" for j in range(len(file.cases))]
            for name, (inputs, _) in zip(names, file.cases, strict=True):
                save_file({n: v.contiguous() for n, v in inputs.items()}, folder / name)
            listed.append(
                {
                    "path": str(file.path.absolute()),
                    "options": dict(file.options),
                    "inputs": names,
                    "runs": runs,
                }
            )
        (folder / "files.json").write_text(json.dumps(listed), encoding="utf-8")
        code = _MAIN.format(program=PROGRAMS[program], without=WITHOUT[program])
        done = subprocess.run(
            [sys.executable, "-c", code, scratch, str(torch.get_num_threads())],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=scratch,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        if done.returncode:
            raise ValueError(
                f"A fresh process with {program} cannot read what was exported: "
                f"{done.stderr.strip()[-500:]}"
            )
        said = json.loads((folder / "said.json").read_text(encoding="utf-8"))
        found = []
        for one, entry in zip(said, listed, strict=True):
            outputs = [folder / name.replace("inputs", "outputs") for name in entry["inputs"]]
            answers = [] if "error" in one else [load_file(path) for path in outputs]
            found.append(Read(answers, one.get("latency_ms"), one.get("error")))
        return found
