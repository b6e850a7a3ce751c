"""The checkpoint of the best weights."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

# In the place of the folder, in what a checkpoint says of the files beside it.
HERE = "{folder}"


class BestCheckpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, which also knows its files when their folder was moved.

    Takes the same arguments.
    """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, with a word in the place of the folder."""
        return _replaced(super().state_dict(), str(self.dirpath), HERE)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was kept, with the folder that is now."""
        super().load_state_dict(_replaced(state_dict, HERE, str(self.dirpath)))
        # Lightning writes it, and leaves it out here.
        self.current_score = state_dict.get("current_score")


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return new + value[len(old) :] if value.startswith(old) else value
    if isinstance(value, Mapping):
        return {_replaced(k, old, new): _replaced(v, old, new) for k, v in value.items()}
    return value
