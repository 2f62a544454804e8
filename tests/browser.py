"""A headless Chromium, spoken to over its debugging pipe: no driver, no socket, no network."""

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60.0  # seconds for an answer; a busy machine takes some


def binary() -> str | None:
    """The path of a browser, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab; use as a context manager.

    Attributes:
      said: console messages, log entries and uncaught errors, as texts.
      requested: addresses that the page asked for.
    """

    def __init__(self, profile: pathlib.Path):
        to_read, self._out = os.pipe()
        self._in, to_write = os.pipe()
        command = [
            *("bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "browser", binary()),
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        ]
        self._process = subprocess.Popen(
            command,
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._number, self._rest, self._session = 0, b"", None
        self.said, self.requested, self._loaded = [], [], 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(PATIENCE)
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, **parameters):
        """Sends a command and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _receive(self, patience: float = PATIENCE) -> dict:
        """The next message; an event is noted on the way."""
        end = time.monotonic() + patience
        while b"\0" not in self._rest:
            left = max(0.0, end - time.monotonic())
            if not select.select([self._in], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._in, 1 << 20)
            assert data, "the browser is gone"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        what, value = message.get("method"), message.get("params", {})
        if what == "Page.loadEventFired":
            self._loaded += 1
        elif what == "Network.requestWillBeSent":
            self.requested.append(value["request"]["url"])
        elif what in ("Runtime.consoleAPICalled", "Log.entryAdded", "Runtime.exceptionThrown"):
            self.said.append(json.dumps(value))
        return message

    def wait_for_load(self, count: int = 1) -> None:
        """Waits until the page was loaded `count` times since the last `open`."""
        while self._loaded < count:
            self._receive()

    def size(self, width: int, height: int, dark: bool = False) -> None:
        """Sets the window's size and the preferred colours."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, path: pathlib.Path, fragment: str = "") -> None:
        """Loads a file from disk, in a fresh document."""
        self.call("Page.navigate", url="about:blank")
        self.said.clear()
        self.requested.clear()
        self.wait_for_load()
        self._loaded = 0
        self.call("Page.navigate", url=path.resolve().as_uri() + fragment)
        self.wait_for_load()
        self.call("Page.bringToFront")
        self._until_input_arrives()

    def _until_input_arrives(self) -> None:
        """A new document takes some frames until pointer and keys find it."""
        self.value(
            "(window.arrived = 0, ['pointermove', 'keydown'].forEach((name, bit) => "
            "addEventListener(name, () => { window.arrived |= 1 << bit; }, true)))"
        )
        end = time.monotonic() + PATIENCE
        while self.value("window.arrived") != 3:
            assert time.monotonic() < end, "neither pointer nor keys reach the page"
            self.mouse(1, 1)
            self.mouse(2, 2)
            self.key("Shift")

    def value(self, expression: str):
        """The JSON value of a JavaScript expression, behind the next drawn frame."""
        frame = "new Promise(d => requestAnimationFrame(() => setTimeout(d, 0)))"
        result = self.call(
            "Runtime.evaluate",
            expression=f"{frame}.then(() => ({expression}))",
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def key(self, name: str) -> None:
        """Presses a key, such as ArrowLeft or Tab."""
        code = {
            "Tab": 9,
            "Shift": 16,
            "End": 35,
            "Home": 36,
            "ArrowLeft": 37,
            "ArrowUp": 38,
            "ArrowRight": 39,
        }
        common = {"key": name, "code": name, "windowsVirtualKeyCode": code[name]}
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **common)

    def mouse(self, x: float, y: float, click: bool = False) -> None:
        """Moves the pointer, perhaps clicks; places are those of the window."""
        common = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, **common)

    def picture(self, path: pathlib.Path, whole: bool = True) -> None:
        """Writes a PNG of the page or of the window."""
        result = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(result["data"]))
