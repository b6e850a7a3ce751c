"""A tokenizer from wherever it is."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..models.hugging_face import TRUST
from ..models.remote_code import remote_code_is_trusted
from ..sealed import check_folder


def load_tokenizer(tokenizer: Any) -> PreTrainedTokenizerBase:
    """A tokenizer as it is given, or from where it was saved; it pads, if need be with its end.

    Args:
        tokenizer: one of transformers, a folder, or a name on the hub.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it has nothing to pad with.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        path = str(tokenizer)
        if path.startswith((".", "/", "~")) and not Path(path).expanduser().is_dir():
            raise FileNotFoundError(f"There is no tokenizer in {path}: no such folder.")
        if Path(path).is_dir():
            check_folder(Path(path), weights=False)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                path, trust_remote_code=remote_code_is_trusted()
            )
        except (OSError, ValueError) as error:
            folders = [p.name for p in Path().glob("*") if p.is_dir()]
            near = get_close_matches(path, folders, n=1)
            hint = f". Did you mean the folder {near[0]}?" if near else ":"
            first = str(error).splitlines()[0]
            if "custom code" in first:
                raise ValueError(f"The tokenizer {path!r} is not loaded: {first}{TRUST}") from error
            raise FileNotFoundError(
                f"No tokenizer could be loaded from {path!r}{hint} {first}"
            ) from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ValueError(
                "The tokenizer has no pad token, nor an end token that could stand for it; set "
                "tokenizer.pad_token and save it."
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
