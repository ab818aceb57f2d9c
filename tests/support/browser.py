"""A headless Chromium driven over the W3C WebDriver protocol, with the standard library alone."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def found() -> bool:
    """Whether Chromium and its driver are installed (Debian: chromium chromium-driver)."""
    return bool(shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("google-chrome")))


class Browser:
    """One window. `logged()`: what the page has written to its console as an error, and every request it has made."""

    def __init__(self, address: str) -> None:
        self._address = address

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=180) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                value = json.load(error)["value"]
            raise AssertionError(f"{value['error']}: {value['message'].splitlines()[0]}") from None

    def open(self, path: Path, hash_: str = "") -> None:
        """Open a page of `dfd-predict` and wait until it shows its picture."""
        self.call("POST", "/url", {"url": path.resolve().as_uri() + hash_})
        self.wait("viewer.ready")

    def wait(self, promise: str) -> Any:
        """The value of a promise in the page."""
        script = f"const done=arguments[0];Promise.resolve({promise}).then(v=>done({{v}}),e=>done({{e:String(e)}}))"
        answer = self.call("POST", "/execute/async", {"script": script, "args": []})
        assert "e" not in answer, answer["e"]
        return answer.get("v")

    def run(self, script: str) -> Any:
        """What `return` in the page gives."""
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def click(self, css: str, x: float | None = None, y: float | None = None) -> None:
        """Click the element, at (x, y) CSS pixels from its top left corner, or in its middle."""
        element = self.call("POST", "/element", {"using": "css selector", "value": css})
        self.run(f"document.querySelector({json.dumps(css)}).scrollIntoView({{block:'center'}})")
        left, top, width, height = self.run(
            f"const b=document.querySelector({json.dumps(css)}).getBoundingClientRect();return [b.x,b.y,b.width,b.height]"
        )
        del element[_ELEMENT]
        at = {"x": round(left + (width / 2 if x is None else x)), "y": round(top + (height / 2 if y is None else y))}
        steps = [{"type": "pointerMove", "duration": 0, "origin": "viewport", **at}, {"type": "pointerDown", "button": 0},
                 {"type": "pointerUp", "button": 0}]  # fmt: skip
        self.call("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": steps}]})

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": size})

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("GET", "/screenshot"))

    def logged(self) -> tuple[list[str], list[str]]:
        """Errors of the console, and addresses asked for by a network request or from disk, since the start;
        not those of the empty tab that a browser opens with."""
        errors = [e["message"] for e in self.call("POST", "/se/log", {"type": "browser"}) if e["level"] == "SEVERE"]
        events = [json.loads(e["message"])["message"] for e in self.call("POST", "/se/log", {"type": "performance"})]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return errors, [
            address for address in asked if not address.startswith(("data:", "blob:", "chrome:", "chrome-untrusted:"))
        ]


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in the empty folder `profile`; both processes end with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}", "--log-level=OFF"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    base = Browser(f"http://127.0.0.1:{port}")
    session = None
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                base.call("GET", "/status")
                break
            time.sleep(0.05)
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--no-first-run",
                     "--enable-unsafe-swiftshader", "--disable-background-networking", "--hide-scrollbars",
                     "--disable-dev-shm-usage", "--force-device-scale-factor=1", f"--user-data-dir={profile}"]  # fmt: skip
        wanted = {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "timeouts": {"script": 120_000},
        }
        session = base.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        yield Browser(f"http://127.0.0.1:{port}/session/{session}")
    finally:
        if session is not None:
            with contextlib.suppress(OSError, AssertionError):
                base.call("DELETE", f"/session/{session}")
        driver.terminate()
        driver.wait(20)
