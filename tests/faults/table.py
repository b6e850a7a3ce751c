"""The table of what was tried."""

import re
from pathlib import Path

HEAD = """# What was tried, and what came of it

Written by `python tests/faults/run.py`; each file beside this one is a kind of fault. A small part
of each runs with the slow tests. Right means: as the first line of the kind's file says.

"""


def write_table(path: Path, found: dict[str, list[dict]], machine: str) -> None:
    """One row for each kind and group of cases.

    Args:
        path: of the file.
        found: rows of outcomes by kind.
        machine: what it ran on.
    """
    lines = ["| fault | cases | tried | right | skipped | seconds | what failed, or was skipped |"]
    lines.append("|---|---|---|---|---|---|---|")
    for kind, rows in found.items():
        title = _title(kind)
        if not rows:
            lines.append(f"| {title} | | not run | | | | |")
            continue
        groups: dict[str, list[dict]] = {}
        for row in rows:
            groups.setdefault(row["name"].partition(",")[0].partition(":")[0], []).append(row)
        if len(groups) > 24:
            groups = {"all": rows}
        for name, of in groups.items():
            lines.append(f"| {title} | {name} | {_figures(of)} |")
            title = ""
    path.write_text(HEAD + f"On {machine}.\n\n" + "\n".join(lines) + "\n")


def _title(kind: str) -> str:
    text = (Path(__file__).parent / f"{kind}.py").read_text()
    return re.search(r'^TITLE = "(.*)"$', text, re.M)[1]


def _figures(rows: list[dict]) -> str:
    counts = [sum(row["verdict"] == v for row in rows) for v in ("right", "skipped")]
    wrong = [row for row in rows if row["verdict"] == "wrong"]
    words = "; ".join(f"{row['name']}: {_short(row['words'])}" for row in wrong[:3])
    if len(wrong) > 3:
        words += f"; and {len(wrong) - 3} more"
    if not wrong:
        words = "; ".join(sorted({row["words"] for row in rows if row["words"]}))[:200]
    seconds = sum(row["seconds"] for row in rows)
    return f"{len(rows)} | {counts[0]} | {counts[1] or ''} | {seconds:.0f} | {words}"


def _short(words: str) -> str:
    return words.replace("|", "/").replace("<", "(").replace("`", "'")[:120]
