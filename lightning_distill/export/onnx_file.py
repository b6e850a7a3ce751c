"""A model as an ONNX file, which any runtime of ONNX runs."""

from pathlib import Path
from typing import Any

import torch

from .plain import axes
from .proof import Proof
from .torch_program import quiet, refusal


def write_onnx(program: Any, proof: Proof, path: Path) -> None:
    """Write a program of torch.export as ONNX, with free sizes of rows and tokens, and check it.

    Inputs are called as the arguments of the model, outputs as what it returns.

    Args:
        program: of `proof.plain`.
        proof: with the inputs that it was traced with.
        path: of the file; weights of more than 2 GB lie beside it.

    Raises:
        ValueError: if torch has no ONNX for what the model does.
    """
    import onnx

    inputs = dict(proof.example())
    try:
        with quiet():
            made: Any = torch.onnx.export(
                program,
                (),
                kwargs=inputs,
                input_names=list(inputs),
                output_names=list(proof.answers),
                dynamo=True,
                verbose=False,
            )
            _name_axes(made, inputs)
            made.save(str(path))
    except Exception as error:
        raise ValueError(refusal(proof.plain, "torch.onnx", error)) from error
    onnx.checker.check_model(str(path), full_check=True)


def _name_axes(made: Any, inputs: dict[str, torch.Tensor]) -> None:
    """Call free sizes what they are, in the place of torch's numbers."""
    names = axes(inputs)
    renamed: dict[str, str] = {}
    for value in made.model.graph.inputs:
        for place, name in names[value.name].items():
            renamed[str(value.shape[place])] = name
    values = [*made.model.graph.inputs, *made.model.graph.outputs]
    values += [output for node in made.model.graph for output in node.outputs]
    for value in values:
        if value.shape is None:
            continue
        for place, size in enumerate(value.shape):
            if str(size) in renamed:
                value.shape[place] = renamed[str(size)]


def write_int8(proof: Proof, path: Path, to: Path) -> None:
    """Write an ONNX file in which products of matrices have weights of 8 bits.

    What comes into them is rounded to 8 bits, too, with one scale for a whole batch.

    Args:
        proof: of the model.
        path: of the file in float32.
        to: what is written.

    Raises:
        ValueError: if onnxruntime cannot quantise it.
    """
    from onnxruntime.quantization import quantize_dynamic, QuantType

    try:
        with quiet():
            # Processors without VNNI cut off sums of products of unsigned and signed numbers.
            quantize_dynamic(str(path), str(to), weight_type=QuantType.QUInt8, per_channel=True)
    except Exception as error:
        raise ValueError(refusal(proof.plain, "onnxruntime in int8", error)) from error
