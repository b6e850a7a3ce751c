"""How a model is written in each format, read again and compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..export_options import INT8
from .fresh_process import File, Read, read_in_a_fresh_process
from .onnx_file import write_int8, write_onnx
from .proof import largest_difference, Proof, Tensors
from .torch_program import in_eager_attention, in_int8, traced, write_program

# By format and kind of numbers: the file, the process that reads it again, and how far its answers
# may be from ours, relative to the largest of them where that is above 1.
FILES: dict[tuple[str, str], tuple[str, str, float | None]] = {
    ("safetensors", "float32"): ("model.safetensors", "transformers", 1e-5),
    ("onnx", "float32"): ("model.onnx", "onnxruntime", 1e-4),
    ("onnx", INT8): ("model.int8.onnx", "onnxruntime", None),
    ("torch_export", "float32"): ("model.pt2", "torch", 1e-4),
    ("torch_export", INT8): ("model.int8.pt2", "torch", None),
}
# Given the answers of ours and those of a file: the share of predictions that are the same.
Same = Callable[[Tensors, Tensors], float | None]


@dataclass
class Written:
    """A file of an exported model, and what was found of it.

    Attributes:
        format: `safetensors`, `onnx` or `torch_export`.
        numbers: `float32` or `int8`.
        file: its name in the folder.
        size_mb: on disk, in megabytes.
        latency_ms: median time of one row in the process that read it, in milliseconds.
        difference: the largest of any number that it returns from ours.
        relative: the same divided by the largest number, where that is above 1.
        same_predictions: the share that is the same; `None` where it was not asked for.
    """

    format: str
    numbers: str
    file: str
    size_mb: float
    latency_ms: float
    difference: float
    relative: float
    same_predictions: float | None = None


def write_formats(
    folder: Path, proof: Proof, formats: Sequence[str], quantization: str | None = None
) -> dict[tuple[str, str], Path]:
    """Write all but safetensors; returns the files by format and kind of numbers.

    Raises:
        ValueError: if the model cannot be written in one of them.
    """
    wanted = [name for name in formats if name != "safetensors"]
    if not wanted:
        return {}
    # Before what takes long.
    int8 = in_int8(proof) if quantization == INT8 and "torch_export" in wanted else None
    program = traced(proof)
    found = {}
    for name in wanted:
        path = found[name, "float32"] = folder / FILES[name, "float32"][0]
        small = folder / FILES[name, INT8][0]
        if name == "onnx":
            _write_onnx(program, proof, path)
            if quantization == INT8:
                write_int8(proof, path, small)
        else:
            write_program(program, proof.plain, path)
            if int8 is not None:
                write_program(traced(proof, int8), int8, small)
        if quantization == INT8:
            found[name, INT8] = small
    return found


def _write_onnx(program: Any, proof: Proof, path: Path) -> None:
    try:
        write_onnx(program, proof, path)
    except ValueError:
        eager = in_eager_attention(proof)
        if eager is None:
            raise
        # torch has no ONNX for the other one in T5.
        write_onnx(traced(proof, eager), proof, path)


def read_again(files: Sequence[tuple[str, str, File]]) -> list[Read]:
    """Read files in fresh processes, one for each library that reads them.

    Args:
        files: each with its format and its kind of numbers.

    Raises:
        ValueError: naming a file that cannot be read.
    """
    found: dict[int, Read] = {}
    for program in dict.fromkeys(FILES[name, numbers][1] for name, numbers, _ in files):
        places = [i for i, (n, k, _) in enumerate(files) if FILES[n, k][1] == program]
        read = read_in_a_fresh_process(program, [files[i][2] for i in places])
        found.update(zip(places, read, strict=True))
    for i, (_, _, file) in enumerate(files):
        if found[i].error is not None:
            raise ValueError(f"The model in {file.path} does not load: {found[i].error}")
    return [found[i] for i in range(len(files))]


def compared(name: str, numbers: str, file: File, read: Read, same: Same | None = None) -> Written:
    """What is found of a file, from what a fresh process has read of it.

    Args:
        name: of the format.
        numbers: `float32` or `int8`.
        file: with the answers that are expected.
        read: with those that came.
        same: says how many predictions are the same, of a file in int8.

    Raises:
        ValueError: if its answers are other ones, or are not finite.
    """
    file_name, program, most = FILES[name, numbers]
    path = file.path / file_name if file.path.is_dir() else file.path
    try:
        found = [
            largest_difference(a, e) for a, (_, e) in zip(read.answers, file.cases, strict=True)
        ]
    except ValueError as error:
        raise ValueError(f"{path} is read by {program}, but is not the model: {error}") from error
    difference, relative = (max(values) for values in zip(*found, strict=True))
    if most is not None and relative > most:
        raise ValueError(
            f"The model in {path} loads, but its logits differ by {difference:.3g} from the "
            f"checkpoint's. The folder is left for you to look at."
        )
    share = same(file.cases[0][1], read.answers[0]) if numbers == INT8 and same else None
    size = sum(p.stat().st_size for p in path.parent.glob(f"{file_name}*") if p.is_file())
    size -= sum(p.stat().st_size for p in path.parent.glob(f"{file_name}*.sha256"))
    assert read.latency_ms is not None
    return Written(
        name, numbers, file_name, size / 1e6, read.latency_ms, difference, relative, share
    )
