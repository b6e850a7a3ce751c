"""How much memory operations take, seen while they run."""

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Adds up the bytes of all tensors that operations make, while these are there.

    What an operation takes for itself and gives back before it ends is not seen.

    Args:
        there: what is there already, such as weights.

    Attributes:
        live: bytes that are there now.
        peak: the most that there ever were.
    """

    def __init__(self, there: Iterable[Tensor] = ()):
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, Any] = {}
        for tensor in there:
            # Operations return views of them, which take nothing.
            self._add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at what it returns."""
        made = func(*args, **(kwargs or {}))
        # Most return one, and looking for others in it takes longer than the rest of this.
        for tensor in (made,) if isinstance(made, Tensor) else tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        self._known[key] = weakref.ref(storage, partial(self._freed, key, size))

    def _freed(self, key: int, size: int, _: Any) -> None:
        self.live -= size
        del self._known[key]
