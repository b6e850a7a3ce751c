"""In which formats a student can be exported, and the packages that they need."""

import importlib.util
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

FORMATS = ("safetensors", "onnx", "torch_export")
INT8 = "int8"
DISTRIBUTION = "lightning-distill"
# By option: the packages that it needs, and the extra that brings them.
NEEDS = {
    "onnx": (("onnx", "onnxruntime", "onnxscript"), "onnx"),
    "torch_export.int8": (("torchao",), "quantization"),
}


def check_formats(formats: Any) -> tuple[str, ...]:
    """The formats, each once; a single word is a list of one.

    Raises:
        ValueError: for one that there is not, or whose packages are not installed.
    """
    given = [formats] if isinstance(formats, str) else list(formats or ())
    for name in given:
        if name not in FORMATS:
            near = get_close_matches(str(name), FORMATS, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"`job.formats` must be some of {', '.join(FORMATS)}, got {name!r}.{hint}"
            )
        _check_packages(f"job.formats={name}", name)
    if not given:
        raise ValueError(f"`job.formats` is empty: name some of {', '.join(FORMATS)}.")
    return tuple(dict.fromkeys(given))


def check_quantization(kind: Any, formats: Sequence[str]) -> None:
    """Refuse what a model cannot be quantised to.

    Raises:
        ValueError: for a kind that there is not, that no format has, or whose package is missing.
    """
    if kind is None:
        return
    if kind != INT8:
        raise ValueError(f"`job.quantization` must be {INT8} or null, got {kind!r}.")
    if not set(formats) & {"onnx", "torch_export"}:
        raise ValueError(
            "job.quantization=int8 is for onnx and torch_export, and job.formats is "
            f"[{', '.join(formats)}]: add one, as in job.formats=[safetensors,onnx]."
        )
    if "torch_export" in formats:
        _check_packages("job.quantization=int8 with torch_export", "torch_export.int8")


def _check_packages(where: str, what: str) -> None:
    packages, extra = NEEDS.get(what, ((), ""))
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{where} needs {', '.join(missing)}, and that is not installed: "
            f"pip install '{DISTRIBUTION}[{extra}]'."
        )
