"""The site of the documentation builds without a warning, and holds every public name."""

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from mkdocs.exceptions import PluginError

import lightning_distill
from lightning_distill.run.targets import ROOMS

ROOT = Path(__file__).parent.parent
API = ROOT / "docs" / "api"
# Beside what a configuration may name.
READ_IN_PYTHON = ("schedules", "training", "models", "cache", "report")
MODULES = {
    "lightning_distill": lightning_distill,
    **{n: importlib.import_module(f"lightning_distill.{n}") for n in (*ROOMS, *READ_IN_PYTHON)},
}


def public_names(room: str) -> list[str]:
    module = MODULES[room]
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = vars(module).items()
    return [n for n, v in own if n[0] != "_" and getattr(v, "__module__", "") == module.__name__]


def documented(room: str) -> list[str]:
    return re.findall(r"^::: ([\w.]+)$", (API / f"{room}.md").read_text(), re.MULTILINE)


def find(dotted: str):
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


ENTRIES = [dotted for room in MODULES for dotted in documented(room)]


def test_every_public_name_has_one_entry():
    entries = [id(find(dotted)) for dotted in ENTRIES]
    assert len(set(entries)) == len(entries)
    missing = [
        f"{room}.{name}"
        for room in MODULES
        for name in public_names(room)
        if id(find(f"{MODULES[room].__name__}.{name}")) not in entries
    ]
    assert not missing, "add `::: NAME` to the room's page in docs/api/"
    assert {*lightning_distill._HOMES} == {d.split(".")[1] for d in documented("lightning_distill")}


def test_each_entry_is_on_the_page_of_its_room():
    for room in MODULES:
        for dotted in documented(room):
            assert dotted.startswith(f"{MODULES[room].__name__}.")
    assert {p.stem for p in API.glob("*.md")} == {"index", *MODULES}
    table = (API / "index.md").read_text()
    assert all(f"({room}.md)" in table for room in MODULES)


def hook(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def changed(text: str, repository: str | None, page: str = "cache.md") -> str:
    config = {"docs_dir": str(ROOT / "docs"), "repo_url": repository}
    shown = SimpleNamespace(file=SimpleNamespace(abs_src_path=str(ROOT / "docs" / page)))
    return hook("outside_links").on_page_markdown(text, shown, config, None)


def test_links_to_the_repository_are_links_where_it_has_an_address():
    page, address = "tasks/pictures.md", "https://example.org/us/it/"
    found = changed("see [`a`](../../benchmarks/x/README.md#the-run).", address, page)
    assert found == "see [`a`](https://example.org/us/it/blob/HEAD/benchmarks/x/README.md#the-run)."
    assert changed("[a](../benchmarks)", None) == "a (`benchmarks` in the repository)"
    assert changed("[`benchmarks/sst2`](../benchmarks/sst2)", None) == "`benchmarks/sst2`"


@pytest.mark.parametrize(
    "text", ["[a](criteria.md#all)", "[a](../docs/cache.md)", "[a](https://b.org/c)", "[a](#b)"]
)
def test_other_links_stay_as_they_are(text):
    assert changed(text, None) == text


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (r"\frac12 x", r"\frac{1}{2} x"),
        (r"\frac1{B^2}", r"\frac{1}{B^2}"),
        (r"\frac{\tau^2}C", r"\frac{\tau^2}{C}"),
        (r"\frac s{\frac12}", r"\frac{s}{\frac{1}{2}}"),
        (r"\sqrt d\big(x\big)", r"\sqrt{d}(x)"),
        (r"\lVert x\rVert\le0", r"\Vert x\Vert \leq 0"),
    ],
)
def test_formulas_are_written_in_the_long_form(short, long):
    found = hook("formulas").in_long_form(short)
    assert re.sub(r"\s+", " ", found).replace("( ", "(").strip() == long


def test_a_formula_is_drawn_and_read_aloud():
    content = r'<p>by <span class="arithmatex">\(a &lt; \frac12\)</span></p>'
    page = SimpleNamespace(file=SimpleNamespace(src_path="criteria.md"))
    found = hook("formulas").on_page_content(content, page)
    assert found.startswith(
        '<p>by <span class="formula" role="img" aria-label="a &lt; \\frac12"><svg'
    )
    assert "currentColor" in found and "\n" not in found
    with pytest.raises(
        PluginError, match=r"criteria\.md: the formula \$\\nosuch x\$ cannot be drawn"
    ):
        hook("formulas").on_page_content(
            content.replace(r"\frac12", r"\nosuch x").replace("a &lt; ", ""), page
        )


class Links(HTMLParser):
    """What a page links to, what it loads, and which anchors it has."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[n] for n in ("id", "name") if given.get(n)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        loads = {"script": "src", "img": "src", "link": "href", "iframe": "src"}
        if given.get(loads.get(tag, "")):
            self.loaded.append(given[loads[tag]])


@pytest.mark.slow
def test_the_site_builds_strictly_and_needs_nothing_from_elsewhere(tmp_path):
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", site],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    pages = {page: Links(page.read_text()) for page in site.rglob("*.html")}
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert len(pages) == len(re.findall(r"[\w/]+\.md", str(nav))) + 1
    for page, found in pages.items():
        if page.name == "404.html":
            continue
        for address in (*found.links, *found.loaded):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                assert address in found.links, f"{page} loads {address}"
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{page} links to {address}"
            if parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in pages[target].anchors, f"{page}: {address}"
    # No formula is left as it is written.
    assert not [p for p in pages if 'class="arithmatex"' in p.read_text()]
    # An entry holds the signature and the docstring.
    criteria = (site / "api" / "criteria" / "index.html").read_text()
    assert 'id="lightning_distill.criteria.SoftTarget"' in criteria
    assert "Hinton" in criteria and "temperature" in criteria
