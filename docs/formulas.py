r"""A hook of mkdocs: formulas as pictures in the page, so that it needs no script from elsewhere.

Matplotlib draws them. It knows LaTeX's formulas in their long form: `\frac{1}{2}` and not
`\frac12`, `\Vert` and not `\lVert`.
"""

import html
import io
import re
from functools import cache
from typing import Any

import matplotlib
from matplotlib.mathtext import math_to_image
from mkdocs.exceptions import PluginError

# As `pymdownx.arithmatex` leaves them.
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
SYNONYMS = {
    **{rf"\{side}Vert": r"\Vert" for side in "lr"},
    **{rf"\{side}vert": r"\vert" for side in "lr"},
    r"\le": r"\leq",
    r"\ge": r"\geq",
    r"\text": r"\mathrm",
    r"\tfrac": r"\frac",
    # Sizes, which it chooses itself.
    **dict.fromkeys([r"\big", r"\Big", r"\bigg", r"\textstyle", r"\displaystyle"], ""),
}
ARGUMENTS = {r"\frac": 2, r"\sqrt": 1, r"\mathcal": 1}


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Draw each formula of a page."""

    def drawn(found: re.Match[str]) -> str:
        formula = html.unescape(found[2]).strip()
        try:
            svg = picture(in_long_form(formula))
        except ValueError as error:
            reason = str(error).strip().splitlines()[-1]
            raise PluginError(
                f"{page.file.src_path}: the formula ${formula}$ cannot be drawn: {reason}. Write "
                "it with what matplotlib knows (matplotlib.org/stable/users/explain/text/mathtext)."
            ) from error
        label = html.escape(formula, quote=True)
        tag = "p" if found[1] == "div" else "span"
        return f'<{tag} class="formula" role="img" aria-label="{label}">{svg}</{tag}>'

    return FORMULA.sub(drawn, content)


def in_long_form(formula: str) -> str:
    r"""The formula with braces around all arguments, as in `\frac{1}{2}` for `\frac12`."""
    parts = re.findall(r"\\[a-zA-Z]+|\\.|.", " ".join(formula.split()))
    written, _ = _read(parts, 0, len(parts))
    return "".join(written)


def _read(parts: list[str], start: int, stop: int) -> tuple[list[str], int]:
    """The parts from `start`, until `stop` or the brace that closes them."""
    written: list[str] = []
    at = start
    while at < stop and parts[at] != "}":
        one, at = _one(parts, at)
        written += one
    return written, at


def _one(parts: list[str], at: int) -> tuple[list[str], int]:
    """One symbol, one group in braces, or one command with its arguments."""
    name = SYNONYMS.get(parts[at], parts[at])
    if name == "{":
        inner, end = _read(parts, at + 1, len(parts))
        return ["{", *inner, "}"], end + 1
    # A command ends where the next letter begins.
    ends = name in SYNONYMS.values() and name and name not in ARGUMENTS
    written = [f"{name} " if ends else name]
    at += 1
    for _ in range(ARGUMENTS.get(name, 0)):
        while parts[at].isspace():
            at += 1
        inner, at = _one(parts, at)
        written += inner if inner[0] == "{" else ["{", *inner, "}"]
    return written, at


@cache
def picture(formula: str) -> str:
    """A formula as SVG, as high as the text that it stands in."""
    file = io.BytesIO()
    style = {"mathtext.fontset": "cm", "svg.fonttype": "path", "svg.hashsalt": formula}
    with matplotlib.rc_context(style):
        depth = math_to_image(f"${formula}$", file, dpi=72, format="svg", color="#010203")
    svg = file.getvalue().decode()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    width, height = (float(x) for x in re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2])
    # Drawn at 10 points. This font looks smaller than others of its size.
    size = f"width:{width / 9:.2f}em;height:{height / 9:.2f}em;vertical-align:{-depth / 9:.2f}em"
    svg = svg.replace("#010203", "currentColor")
    # Each glyph is a definition, and names of definitions are those of the whole page.
    prefix = f"f{abs(hash(formula)):x}-"
    svg = re.sub(r'(id="|xlink:href="#|url\(#)', rf"\g<1>{prefix}", svg)
    # A blank line would end the block in which the picture stands.
    svg = re.sub(r"\s*\n\s*", " ", svg)
    return svg.replace("<svg ", f'<svg style="{size}" ', 1)
