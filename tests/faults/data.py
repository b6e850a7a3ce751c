"""Rows that are wrong: refused in words, or left out and counted; never trained on silently."""

import json
import math
from functools import partial
from pathlib import Path

from faults.case import Case
from faults.compared import at, check_words
from faults.job import command, JOB, rows

TITLE = "Rows that are wrong"
HEAD = "text\tlabel\n"
GOOD = [f"{text}\t{label}\n" for text, label in rows(32, 0)]
REFUSED = {
    "nothing": "",
    "only a header": HEAD,
    "only line ends": "\n\n\n",
    "no text column": "label\n" + "good\n" * 9,
    "a row with more fields": HEAD + "".join(GOOD) + "so\tso\tgood\n",
    "a row with fewer fields": HEAD + "".join(GOOD) + "fine\n",
    "a binary file": "\x00\x01\x02" * 50,
    "the same column twice": "text\ttext\n" + "fine\tgood\n" * 9,
    "a label of one class only": HEAD + "fine\tgood\n" * 9,
}
MAY_BE_COUNTED = {
    "no label column": "text\n" + "fine\n" * 9,
    "one row": HEAD + GOOD[0],
    "two rows": HEAD + "".join(GOOD[:2]),
    "an empty text": HEAD + "".join(GOOD) + "\tgood\n",
    "a text of spaces": HEAD + "".join(GOOD) + "   \tgood\n",
    "all texts empty": HEAD + "\tgood\n\tbad\n" * 9,
    "an empty label": HEAD + "".join(GOOD) + "fine\t\n",
    "a label that no other row has": HEAD + "".join(GOOD) + "fine\tvery good\n",
    "a very long text": HEAD + "".join(GOOD) + "fine " * 5000 + "\tgood\n",
    "unknown words": HEAD + "\u4e16\u754c\tgood\n\u4f60\u597d\tbad\n" * 9,
    "quotes that do not end": HEAD + "".join(GOOD) + '"fine\tgood\n',
    "line ends of Windows": (HEAD + "".join(GOOD)).replace("\n", "\r\n"),
    "a byte order mark": "\ufeff" + HEAD + "".join(GOOD),
    "nulls": HEAD + "".join(GOOD) + "fi\x00ne\tgood\n",
    "labels that are numbers": HEAD + "fine\t0\npoor\t1\n" * 9,
    "labels -1 and 1": HEAD + "fine\t-1\npoor\t1\n" * 9,
    "labels with a space": HEAD + "fine\tgood \npoor\tbad\n" * 9,
    "the same row 40 times": HEAD + GOOD[0] * 40 + GOOD[1] + GOOD[2],
    "labels nan": HEAD + "fine\tnan\npoor\tbad\n" * 9,
}
BYTES = {
    "Latin-1": "caf\u00e9\tgood\n".encode("latin-1"),
    "UTF-16": "fine\tgood\n".encode("utf-16"),
}


def cases() -> list[Case]:
    found = []
    for name, text in REFUSED.items():
        attempt = partial(_trained, content=text.encode(), may_pass=False)
        found.append(Case(f"refused: {name}", attempt, name == "only a header"))
    for name, text in MAY_BE_COUNTED.items():
        attempt = partial(_trained, content=text.encode(), may_pass=True)
        found.append(Case(f"refused or counted: {name}", attempt, name == "an empty text"))
    for name, content in BYTES.items():
        content = HEAD.encode() + "".join(GOOD).encode() + content
        found.append(Case(f"refused: {name}", partial(_trained, content=content, may_pass=False)))
    for split in ("validation", "test"):
        for name in ("nothing", "only a header", "no text column"):
            attempt = partial(_other_split, split=split, content=REFUSED[name])
            found.append(Case(f"refused: {name} in {split}", attempt))
        attempt = partial(_other_split, split=split, content=HEAD + "fine\tunheard of\n" * 3)
        found.append(Case(f"refused: a class that training rows lack, in {split}", attempt))
    for name, text in (
        ("broken JSON", '{"text": "fine", "label": "good"\n'),
        ("a list in the place of a text", '{"text": ["fine"], "label": "good"}\n' * 9),
    ):
        found.append(Case(f"refused: {name}", partial(_json, content=text, may_pass=False)))
    # A student can learn of its teacher alone.
    for name, text in (
        ("JSON without a label", '{"text": "fine"}\n' * 9),
        ("labels that are null", '{"text": "fine", "label": null}\n' * 9),
    ):
        attempt = partial(_json, content=text, may_pass=True)
        found.append(Case(f"refused or counted: {name}", attempt))
    return found


def _trained(folder: Path, content: bytes, may_pass: bool) -> None:
    _run(folder, content, "train", "tsv", may_pass)


def _json(folder: Path, content: str, may_pass: bool) -> None:
    _run(folder, content.encode(), "train", "jsonl", may_pass)


def _other_split(folder: Path, split: str, content: str) -> None:
    _run(folder, content.encode(), split, "tsv", False)


def _run(folder: Path, content: bytes, split: str, ending: str, may_pass: bool) -> None:
    (folder / f"rows.{ending}").write_bytes(content)
    given = [*JOB, f"data.{split}={folder}/rows.{ending}", at(folder / "run")]
    ended = command(given, seconds=60)
    if ended.code == 0 and may_pass:
        result = json.loads((folder / "run" / "result.json").read_text())
        bad = {k: v for k, v in result["metrics"].items() if not math.isfinite(v)}
        assert not bad, f"figures that are not finite: {bad}"
        return
    check_words(ended)
    assert not list(folder.rglob("*.ckpt")), "a step was made"
