"""A headless Chromium for tests, with the network off; without one, tests are skipped."""

import shutil
from contextlib import contextmanager

import pytest


def chromium_path() -> str:
    """Where Chromium is; skips the test, saying what to install, where there is none."""
    pytest.importorskip(
        "playwright.sync_api",
        reason="needs the Python package playwright (the extra `test` brings it)",
    )
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    path = path or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs a Chromium on the PATH (Debian: apt-get install chromium)")
    return path


@contextmanager
def chromium():
    """A browser; closed at the end."""
    path = chromium_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        try:
            yield browser
        finally:
            browser.close()


def watch(page, problems: list[str]) -> None:
    """Collects what a page must not do: console errors, exceptions, requests of the network."""
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: problems.append(str(e)))
    page.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:")) else problems.append(r.url),
    )


def overflowing(page) -> list[str]:
    """What reaches past the window, unless it stands in a box that scrolls by itself."""
    return page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter((e) => {
            const box = e.getBoundingClientRect();
            if (box.width === 0 || box.right <= innerWidth + 1) return false;
            for (let p = e.parentElement; p; p = p.parentElement)
              if (getComputedStyle(p).overflowX !== 'visible') return false;
            return !e.closest('.skip');
        }).map((e) => e.outerHTML.slice(0, 80))"""
    )
