"""Packages that come with an extra of this one, and not by themselves."""

import importlib.util

DISTRIBUTION = "lightning-distill"


def check_extra(wanted: str, extra: str, *packages: str, otherwise: str = "") -> None:
    """Refuse at once what would fail when much is loaded or trained already.

    Args:
        wanted: what needs the packages, as the user has typed it.
        extra: that brings them, as in `pip install 'lightning-distill[extra]'`.
        packages: by the names under which they are imported.
        otherwise: what else the user can do, as `leave it null`.

    Raises:
        ValueError: if any of them is not installed.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if not missing:
        return
    which = f"the package {missing[0]}, which is"
    if missing[1:]:
        which = f"the packages {', '.join(missing)}, which are"
    end = f", or {otherwise}" if otherwise else ""
    raise ValueError(
        f"{wanted} needs {which} not installed: pip install '{DISTRIBUTION}[{extra}]'{end}."
    )
