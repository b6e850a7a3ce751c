"""A hook of mkdocs: links from a page to files of the repository that are no pages.

On the site such a link goes to the repository, if `repo_url` of mkdocs.yml names one. Otherwise the
page says where the file lies, for a link would lead nowhere. In the repository itself the links
work as they are.
"""

import re
from pathlib import Path
from typing import Any

# A link in Markdown; what it leads to has no space.
LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>\.\.?/[^)\s]*)\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Change each link that leaves the folder of the pages, before mkdocs looks at it."""
    pages = Path(config["docs_dir"]).resolve()
    root = pages.parent
    folder = Path(page.file.abs_src_path).resolve().parent

    def changed(found: re.Match[str]) -> str:
        path, _, anchor = found["target"].partition("#")
        file = (folder / path).resolve()
        if file.is_relative_to(pages) or not file.is_relative_to(root):
            return found[0]
        return link(found["text"], file.relative_to(root).as_posix(), anchor, config["repo_url"])

    return LINK.sub(changed, markdown)


def link(text: str, path: str, anchor: str, repository: str | None) -> str:
    """Markdown for a file of the repository: a link, or its path where there is no address."""
    if repository:
        address = f"{repository.rstrip('/')}/blob/HEAD/{path}"
        return f"[{text}]({address}{'#' + anchor if anchor else ''})"
    return text if text.strip("`") == path else f"{text} (`{path}` in the repository)"
