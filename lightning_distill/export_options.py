"""In which formats and numbers a student can be exported, and the packages that these need."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from .extras import check_extra
from .quantization_schemes import scheme_named, SCHEMES

FORMATS = ("safetensors", "onnx", "torch_export")
# Which schemes a format has; a model of integers is made by torchao, and by onnxruntime its own.
OF_FORMATS = {"onnx": ("int8",), "safetensors": (*SCHEMES,), "torch_export": (*SCHEMES,)}
OF_TORCHAO = ("safetensors", "torch_export")
# By option: the packages that it needs, and the extra that brings them.
NEEDS = {
    "onnx": (("onnx", "onnxruntime", "onnxscript"), "onnx"),
    "quantization": (("torchao",), "quantization"),
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
    scheme = scheme_named(kind, "`job.quantization`")
    without = [name for name in formats if scheme.name not in OF_FORMATS[name]]
    if without:
        name, known = without[0], OF_FORMATS[without[0]]
        raise ValueError(
            f"job.quantization={scheme.name} is for {' and '.join(OF_TORCHAO)}; {name} has "
            f"{' and '.join(known)} only. Leave {name} out of job.formats, or take "
            f"job.quantization={known[0]}."
        )
    for name in formats:
        if name in OF_TORCHAO:
            _check_packages(f"job.quantization={scheme.name} with {name}", "quantization")


def _check_packages(where: str, what: str) -> None:
    packages, extra = NEEDS.get(what, ((), ""))
    check_extra(where, extra, *packages)
