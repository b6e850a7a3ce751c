"""A student that learns with the rounded weights that it will have when it is used."""

import logging
from collections.abc import Mapping

from torch import nn

from ..models.dropout import without_dropout
from ..models.fake_quantization import fake_layers, fake_quantized, quantization_in_training
from ..models.freshness import is_fresh
from ..models.peft_parts import is_adapted
from ..models.quantization import linear_layers
from ..quantization_schemes import check_torchao, Quantization, quantization_of

log = logging.getLogger("lightning_distill")


def quantized(
    of: nn.Module,
    quantization: str | Mapping[str, str] | Quantization | None,
    where: str = "quantization",
    dropout: bool | None = None,
) -> nn.Module:
    """The model with linear layers that round while it is trained, by torchao's fake quantisation.

    Args:
        of: the model; changed in place. Its layers stay where they are, and so do the names of its
            weights. What makes logits of tokens is not rounded.
        quantization: `int8`, `int4` (weights, and 8 bits for what comes into a layer),
            `int8_weights`, `int4_weights`, or `{"scheme": "int4", "train": "scales"}`, which
            freezes everything but the scales of the weights; `None` leaves the model as it is.
        where: what the user has set.
        dropout: whether some of its values are left out at random in training. By default a model
            with trained weights learns without: what dropout changes of its answers is many times
            what rounding does.

    Returns:
        The same model. `job=export`, or
        `in_integers`, makes the model of
        integers.

    Raises:
        ValueError: for another scheme, if torchao is not installed, if there is nothing to
            quantise, or if the model has adapters.

    References:
        Liu et al., *LLM-QAT: data-free quantization aware training for large language models*,
        2023, https://arxiv.org/abs/2305.17888, which teaches it by the model before quantisation.
    """
    how = quantization if isinstance(quantization, Quantization) else None
    how = how or quantization_of(quantization, where)
    if how is None:
        return of
    check_torchao(f"{where}={how.scheme.name}")
    name = type(of).__name__
    if quantization_in_training(of) is not None:
        raise ValueError(f"{name} is quantised already.")
    if is_adapted(of):
        raise ValueError(
            f"{where}={how.scheme.name} rounds the weights that are trained, and of this student "
            "only adapters are: train these first, and then their student/ with student=pretrained "
            f"student.path=RUN/student {where}={how.scheme.name}."
        )
    layers = linear_layers(of)
    if not layers:
        raise ValueError(
            f"{where}={how.scheme.name} rounds layers of torch.nn.Linear, and {name} has none "
            f"beside its head. Leave {where}=null, or take a student that has."
        )
    rounded = sum(layer.weight.numel() for layer in {id(x): x for x in layers.values()}.values())
    every = sum(p.numel() for p in of.parameters())
    wanted = is_fresh(of) if dropout is None else dropout
    if not wanted and without_dropout(of):
        log.info("Student: dropout is off; student.dropout=true keeps it")
    fake_quantized(of, how)
    log.info(
        "Student: %s of %s weights are rounded to %s bits, those of %d linear layers",
        f"{rounded:,}", f"{every:,}", how.scheme.bits, len(fake_layers(of)),
    )  # fmt: skip
    return of
