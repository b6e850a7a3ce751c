"""Whether the model that a configuration describes can be in the memory of this machine."""

import os
from typing import Any

# More than any model has; each of them takes time to be made, whatever its size.
MOST_LAYERS = 10_000
SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
SIZES += ("max_position_embeddings",)


def check_memory(config: Any) -> None:
    """Refuse a configuration whose model would fill the memory, before anything of it is made.

    Args:
        config: a configuration of transformers.

    Raises:
        ValueError: naming what is too large.
    """
    parts = {id(part): part for part in (config, config.get_text_config())}
    for part in parts.values():
        size = {name: getattr(part, name, None) for name in SIZES}
        known = {name: value for name, value in size.items() if isinstance(value, int)}
        layers, width = known.get("num_hidden_layers", 0), known.get("hidden_size", 0)
        if layers > MOST_LAYERS:
            raise ValueError(
                f"A model of {layers:,} layers is no model: num_hidden_layers may be at most "
                f"{MOST_LAYERS:,}."
            )
        # At least: attention and the two products of each layer, and the embeddings.
        per_layer = width * (4 * width + 2 * known.get("intermediate_size", 0))
        least = layers * per_layer + width * known.get("vocab_size", 0)
        # Of positions only what no model reads that turns its queries by them.
        far = known.get("max_position_embeddings", 0)
        least += width * far if far > 10**8 else 0
        if least > memory():
            listed = ", ".join(f"{name}={value:,}" for name, value in known.items())
            raise ValueError(
                f"This model would have at least {least:,} weights ({listed}), and this machine "
                f"has {memory():,} bytes of memory."
            )


def memory() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
