"""Whether code that comes with a model, a tokenizer or a processor may be run."""

from collections.abc import Iterator
from contextlib import contextmanager

import transformers.dynamic_module_utils

_trusted = False


@contextmanager
def trusting_remote_code(trusted: bool) -> Iterator[None]:
    """Whether such code is run in the meantime; it is not until someone says so."""
    global _trusted
    asking = transformers.dynamic_module_utils
    before, seconds = _trusted, asking.TIME_OUT_REMOTE_CODE
    _trusted = trusted
    # Where nobody has said anything, transformers would ask at a terminal; this makes it refuse.
    asking.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        _trusted, asking.TIME_OUT_REMOTE_CODE = before, seconds


def remote_code_is_trusted() -> bool:
    """Whether such code is run, given as `trust_remote_code` to whatever loads."""
    return _trusted
