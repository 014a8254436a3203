"""What the site has beside the pages in docs/: the README as its first page, and the list of changes.

    python -m mkdocs build --strict        (make docs)

MkDocs calls these functions; mkdocs.yml names this file.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"index.md": "README.md", "changes.md": "CHANGELOG.md", "parity.md": "benchmarks/results/parity.md"}
"""page of the site → file of the repository"""
HOMES = {home: page for page, home in PAGES.items()}
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    for page, home in PAGES.items():
        text = (ROOT / home).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=relinked(text, PurePosixPath(home).parent)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    if page.file.src_uri in PAGES:
        return markdown
    return relinked(
        markdown, PurePosixPath("docs") / PurePosixPath(page.file.src_uri).parent, page.file.src_uri
    )


def relinked(markdown: str, folder: PurePosixPath, page: str = "index.md") -> str:
    """Links from a file in a folder of the repository, as links of the site. Of a link to a file that the site does not
    have, only its words stay."""

    up = "../" * (len(PurePosixPath(page).parts) - 1)

    def link(found: re.Match[str]) -> str:
        words, target, place = found.groups(default="")
        path = _plain(folder / target)
        home = HOMES.get(str(path)) or (path.relative_to("docs") if path.is_relative_to("docs") else None)
        return f"[{words}]({up}{home}{place})" if home else words

    return LINK.sub(link, markdown)


def _plain(path: PurePosixPath) -> PurePosixPath:
    """The path without `..`."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return PurePosixPath(*parts)
