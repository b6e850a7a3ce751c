"""How a model is written in each format, read again and compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..export_options import OF_FORMATS
from .fresh_process import File, Read, read_in_a_fresh_process
from .integers import Integers, write_integers
from .onnx_file import write_int8, write_onnx
from .proof import largest_difference, Proof, Tensors
from .torch_program import in_eager_attention, traced, write_program

FLOAT32 = "float32"


@dataclass(frozen=True)
class Format:
    """How the files of a format are called, and read again.

    Attributes:
        file: in float32.
        smaller: in fewer bits, with the name of the scheme in the place of {}.
        program: the process that reads them again.
        most: how far the answers of the one in float32 may be from ours, relative to the largest
            of them where that is above 1.
    """

    file: str
    smaller: str
    program: str
    most: float

    def name(self, numbers: str) -> str:
        """Of the file, in `float32` or a scheme."""
        return self.file if numbers == FLOAT32 else self.smaller.format(numbers)


FORMATS = {
    "safetensors": Format("model.safetensors", "{}/model.safetensors", "transformers", 1e-5),
    "onnx": Format("model.onnx", "model.{}.onnx", "onnxruntime", 1e-4),
    "torch_export": Format("model.pt2", "model.{}.pt2", "torch", 1e-4),
}
# Given the answers of ours and those of a file: the share of predictions that are the same.
Same = Callable[[Tensors, Tensors], float | None]


@dataclass
class Written:
    """A file of an exported model, and what was found of it.

    Attributes:
        format: `safetensors`, `onnx` or `torch_export`.
        numbers: `float32`, or the name of a scheme.
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
    folder: Path,
    proof: Proof,
    formats: Sequence[str],
    scheme: str | None = None,
    integers: Integers | None = None,
) -> dict[tuple[str, str], Path]:
    """Write all but safetensors in float32; returns the files by format and kind of numbers.

    Args:
        folder: that they are written into.
        proof: of the model in float32.
        formats: some of `FORMATS`.
        scheme: writes those in fewer bits, too, where a format has it.
        integers: the model in these; ONNX makes its own of the file in float32.

    Raises:
        ValueError: if the model cannot be written in one of them.
    """
    found: dict[tuple[str, str], Path] = {}
    program = traced(proof) if {*formats} - {"safetensors"} else None
    for name in formats:
        kind = FORMATS[name]
        numbers = scheme if scheme in OF_FORMATS[name] else None
        path, small = folder / kind.file, folder / kind.name(numbers or FLOAT32)
        if name == "onnx":
            _write_onnx(program, proof, path)
            if numbers is not None:
                write_int8(proof, path, small)
        elif name == "torch_export":
            write_program(program, proof.plain, path)
            if integers is not None:
                write_program(traced(proof, integers.plain), integers.plain, small)
        elif integers is not None:
            write_integers(integers, small.parent)
        if name != "safetensors":
            found[name, FLOAT32] = path
        if numbers is not None:
            # Of transformers the folder is read.
            found[name, numbers] = small.parent if name == "safetensors" else small
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
    for program in dict.fromkeys(FORMATS[name].program for name, _, _ in files):
        places = [i for i, (n, _, _) in enumerate(files) if FORMATS[n].program == program]
        read = read_in_a_fresh_process(program, [files[i][2] for i in places])
        found.update(zip(places, read, strict=True))
    for i, (_, _, file) in enumerate(files):
        if found[i].error is not None:
            raise ValueError(f"The model in {file.path} does not load: {found[i].error}")
    return [found[i] for i in range(len(files))]


def compared(
    name: str,
    numbers: str,
    file: File,
    read: Read,
    same: Same | None = None,
    most: float | None = None,
) -> Written:
    """What is found of a file, from what a fresh process has read of it.

    Args:
        name: of the format.
        numbers: `float32`, or the name of a scheme.
        file: with the answers that are expected.
        read: with those that came.
        same: says how many predictions are the same, of a file in fewer bits.
        most: how far the answers of a file in fewer bits may be from those that are expected, as
            `most` of a format; `None` is however far.

    Raises:
        ValueError: if its answers are other ones, or are not finite.
    """
    kind = FORMATS[name]
    program, file_name = kind.program, kind.name(numbers)
    path = file.path / Path(file_name).name if file.path.is_dir() else file.path
    most = kind.most if numbers == FLOAT32 else most
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
    share = same(file.cases[0][1], read.answers[0]) if numbers != FLOAT32 and same else None
    size = sum(p.stat().st_size for p in path.parent.glob(f"{path.name}*") if p.is_file())
    size -= sum(p.stat().st_size for p in path.parent.glob(f"{path.name}*.sha256"))
    assert read.latency_ms is not None
    return Written(
        name, numbers, file_name, size / 1e6, read.latency_ms, difference, relative, share
    )
