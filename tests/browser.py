"""A real browser, for the tests that look at pages: Debian's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

HAS_BROWSER = CHROMIUM is not None and find_spec("playwright") is not None


BROWSER_MARKS = (
    pytest.mark.extra,
    pytest.mark.skipif(
        not HAS_BROWSER, reason="needs Debian's chromium, and playwright from the extra `dev`"
    ),
)


def needs_browser(test: Any) -> Any:
    """Skip a test where Chromium or Playwright is missing."""
    for mark in BROWSER_MARKS:
        test = mark(test)
    return test


class Visit:
    """A page that is open, what it asked of the network and what it complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))


@contextmanager
def visiting(url: str, **context: Any) -> Iterator[Visit]:
    """Open a page. context: options of Playwright's `new_context`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            visit = Visit(browser.new_context(**context).new_page())
            visit.page.goto(url)
            yield visit
        finally:
            browser.close()


def expect(locator: Any) -> Any:
    """Return Playwright's assertions about an element."""
    from playwright.sync_api import expect as playwright_expect

    return playwright_expect(locator)
