"""Whether code that comes with a model, a tokenizer or a processor may be run."""

import transformers.dynamic_module_utils

_trusted = False


def trust_remote_code(trusted: bool) -> None:
    """Say for this process whether such code is run; it is not until someone says so."""
    global _trusted
    _trusted = trusted
    # Where nobody has said anything, transformers would ask at a terminal; this makes it refuse.
    transformers.dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0


def remote_code_is_trusted() -> bool:
    """Whether such code is run, given as `trust_remote_code` to whatever loads."""
    return _trusted
