"""A trained Hugging Face model as the teacher."""

from torch import nn

from ..models.configuration import configured
from ..models.hugging_face import check_complete, check_dtype, load
from ..models.quantization import check_quantization, quantized


def pretrained(
    path: str,
    auto_class: str | None = None,
    dtype: str | None = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool | None = None,
    quantization: str | None = None,
) -> nn.Module:
    """Load a trained model; every one of its weights must be there.

    It comes in eval mode and keeps no cache of keys and values, which training never reads.

    Args:
        path: a folder that `save_pretrained` wrote, or a name on the Hugging Face hub.
        auto_class: the class of transformers that knows the task, such as `AutoModelForCausalLM`;
            `AutoModelForSequenceClassification` by default.
        dtype: `float32` (the default), `bfloat16` or `float16`.
        attn_implementation: for example `eager`, which returns attention maps.
        trust_remote_code: run code that comes with the model; by default only where the command
            line says so for all models.
        quantization: `int8` makes it smaller and changes its answers, see `quantized`.

    Raises:
        FileNotFoundError: if there is no such folder or model.
        ValueError: if weights are missing, such as the head of a model never trained for the
            task, or have other sizes than the configuration says; if torchao is needed and absent.
    """
    check_quantization(quantization)
    model, info = load(
        path,
        auto_class,
        dtype=check_dtype(dtype),
        attn_implementation=attn_implementation,
        trust_remote_code=trust_remote_code,
    )
    check_complete(f"teacher {path}", info)
    if configured(model, "use_cache"):
        model.config.use_cache = False
    return quantized(model.eval(), quantization)
