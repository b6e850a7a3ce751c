"""The state of every generator of random numbers that a step may draw from."""

import random
from typing import Any

import numpy as np
import torch


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of Python, numpy, torch on the CPU, and torch on `device`; plain values."""
    of_numpy: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, gauss = of_numpy
    version, words, following = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "python": (version, list(words), following),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put back what [`random_state`][] gave; a device that it does not know stays as it is."""
    torch.set_rng_state(state["torch"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    numbers = keys.numpy().astype(np.uint32)
    np.random.set_state((name, numbers, position, has_gauss, gauss))
    version, words, following = state["python"]
    random.setstate((version, tuple(words), following))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
