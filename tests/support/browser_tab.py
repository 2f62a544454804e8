"""A page of a real browser, for tests of report.html; they are skipped where there is no Chromium or Chrome."""

import contextlib
import pathlib
import shutil
import time

import pytest

from neas_tf.common.paths import project_file

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
EVIL = '<img src=x onerror="document.title=1">'
CIFAR = pathlib.Path(project_file("docs", "results", "cifar10_cpu"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
DRAWN = "[...document.querySelectorAll('.chart')].every(n => n.dataset.drawn || !n.offsetWidth)"
SCATTER = "#r0-scatter-macs"
MARKS = ".mark-symbol.role-mark"

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


class Tab:
    """A page of the browser; notes what it says, and what it asks for."""

    def __init__(self, chromium, width=1280, height=900, dark=False):
        scheme = "dark" if dark else "light"
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        self.page, self.said, self.requested = context.new_page(), [], set()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requested.add(request.url.split("#")[0]))
        self.value = self.page.evaluate

    def open(self, path, address=""):
        self.page.goto("about:blank")
        self.page.goto(f"{path.as_uri()}{address}")
        self.drawn()

    def wait(self, expression):
        """Until it is true; the page's policy keeps playwright from looking by itself."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(sync_api.Error):  # it is just being loaded
                if self.value(expression):
                    return
            time.sleep(0.05)
        raise TimeoutError(expression)

    def drawn(self):
        """Waits until each chart that can be seen is drawn."""
        self.wait(DRAWN)
        self.value("new Promise(done => setTimeout(done, 50))")

    def count(self, selector):
        return self.page.locator(selector).count()

    def text(self, selector):
        return self.page.locator(selector).first.text_content()

    def key(self, selector, *keys):
        for key in keys:
            self.page.locator(selector).press(key)

    def attribute(self, selector, name):
        return self.page.locator(selector).first.get_attribute(name)


def saved(tab, selector):
    """(name, bytes) of what a button saves, pressed by the keyboard."""
    with tab.page.expect_download() as got:
        tab.key(selector, "Enter")
    return got.value.suggested_filename, pathlib.Path(got.value.path()).read_bytes()
