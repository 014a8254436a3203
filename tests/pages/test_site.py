"""The documentation as a site: it builds without a warning, its links lead somewhere, and it needs no network."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """The links of a page, what it loads, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in ("script", "img", "iframe", "source") and "src" in values:
            self.loaded.append(values["src"])
        elif tag == "link" and values.get("rel") in ("stylesheet", "preconnect", "icon", "preload"):
            self.loaded.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning is an error."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    config.plugins.on_shutdown()
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_links_lead_to_a_page_and_a_place_on_it(pages: dict[Path, Page]) -> None:
    assert len(pages) > 20
    lost = []
    for path, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(unquote(link))
            if ":" in target:
                continue
            other = (path.parent / target).resolve() if target else path
            if not other.is_file() or (other in pages and anchor not in pages[other].anchors):
                lost.append(f"{path.name}: {link}")
    assert lost == []


def test_a_page_loads_nothing_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert page.loaded, path
        missing = [each for each in page.loaded if not (path.parent / unquote(each.split("?")[0])).is_file()]
        assert missing == [], path
    assert (site / "search" / "search_index.js").is_file(), "the search needs no server"


def test_every_page_is_in_the_navigation(pages: dict[Path, Page], site: Path) -> None:
    linked = {(site / urldefrag(link)[0]).resolve() for link in pages[site / "index.html"].links if link}
    apart = {"parity.html"}  # a table that docs/checkpoints.md links to
    assert {path.name for path in pages if path not in linked} == apart


def test_the_search_works_from_the_file_system(site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.set_default_timeout(30_000)
    asked, troubles = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto((site / "index.html").as_uri())
    page.fill("[data-md-component=search-query]", "spot machine")
    page.wait_for_selector(".md-search-result__item a")
    found = page.locator(".md-search-result__item a").first.get_attribute("href")
    page.close()
    assert found is not None
    assert "stopping.html" in found
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert troubles == []
