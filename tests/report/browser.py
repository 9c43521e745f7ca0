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
