"""A model whose weights are integers, and a folder of it that transformers loads."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..models.fake_quantization import in_integers, in_plain_layers, quantization_in_training
from ..models.quantization import linear_layers, quantized, real_config
from ..models.row_head import drop_row_head, row_head_of
from ..quantization_schemes import scheme_named
from .plain import Plain
from .proof import Proof

# How far the logits of a model that was trained with rounded weights may be from those that it had
# then, relative to the largest of them where that is above 1.
AS_TRAINED = 1e-3


@dataclass
class Integers:
    """A model of integers, and what it is compared with.

    Attributes:
        scheme: the name of what its layers are.
        plain: the model, in eval mode.
        proof: the answers that its files are compared with: of the model as it was trained.
        most: how far they may be from these; `None` where it was trained in float32, and rounded
            afterwards.
    """

    scheme: str
    plain: Plain
    proof: Proof
    most: float | None

    @classmethod
    def of(cls, proof: Proof, scheme: str) -> "Integers":
        """The model of a proof in integers; it stays as it is.

        Args:
            proof: of a model that was trained in float32, or with rounded weights.
            scheme: the name of one; that of the training, if it was rounded then.

        Raises:
            ValueError: for a model without layers that could be quantised.
        """
        model: Any = proof.plain.model
        if quantization_in_training(model) is not None:
            other, most = in_integers(model), AS_TRAINED
        elif linear_layers(model):
            other, most = quantized(copy.deepcopy(model), scheme), None
        else:
            raise ValueError(
                f"job.quantization={scheme} changes layers of torch.nn.Linear, and "
                f"{type(model).__name__} has none beside its head. Set job.quantization=null; int8 "
                "of ONNX alone, as in job.formats=onnx, needs no such layers."
            )
        return cls(scheme, Plain(other, proof.plain.names, proof.plain.pooling).eval(), proof, most)


def in_float(model: Any) -> Any:
    """A model as it is loaded without torchao: with rounded weights, if it was trained so."""
    return model if quantization_in_training(model) is None else in_plain_layers(model)


def write_integers(integers: Integers, folder: Path) -> None:
    """Write a folder from which transformers, where torchao is installed, loads the integers.

    Args:
        integers: a model of transformers.
        folder: made if missing.
    """
    from transformers import TorchAoConfig
    from transformers.quantizers import AutoHfQuantizer

    model: Any = copy.deepcopy(integers.plain.model)
    if row_head_of(model) is not None:
        # The float folder has it; transformers would not know its weights.
        drop_row_head(model)
    scheme = scheme_named(integers.scheme)
    # Each weight in the file says how it is grouped; this is what most of them are.
    said = TorchAoConfig(real_config(scheme, scheme.group))
    model.config.quantization_config = said
    model.hf_quantizer = AutoHfQuantizer.from_config(said)
    model.save_pretrained(folder)
