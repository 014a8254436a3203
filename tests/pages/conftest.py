"""A browser, and small checkpoints to make pages of."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The same small checkpoints as in the tests of inference.
from tests.tasks.conftest import folders, tokenizer, vocabulary

__all__ = ["browser", "folders", "show", "tokenizer", "vocabulary"]
OPTIONS = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync"
)
ARGUMENTS = [f"--{option}" for option in OPTIONS.split()]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a browser is marked so: `make test-all` cannot install one."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright. It ends with the tests of pages: its event loop would disturb others."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"needs a browser on the PATH: {', '.join(NAMES)}")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, see the dev extra")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Any]]:
    """`show(place, width=1280, theme="light")` opens a file or an address. At the end of the test nothing may have been
    reported on the console, and nothing asked for but the page itself and what its own address serves."""
    contexts, troubles = [], []

    def opened(place: Path | str, width: int = 1280, theme: str = "light") -> Any:
        address = place if isinstance(place, str) else place.resolve().as_uri()
        own = address if isinstance(place, Path) else address.partition("?")[0]
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        foreign = (own, "data:", "blob:")
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(foreign) else troubles.append(f"asks for {request.url}")
            ),
        )
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []
