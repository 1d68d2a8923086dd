"""A real server, a real browser, and the helpers that the tests of the page share."""

import base64
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

ROOT = Path(__file__).resolve().parents[2]
MODEL = Path(os.environ.get("TRIPTYCH_MODEL", ROOT / "models/small-world"))
SAMPLES = MODEL / "samples"
NATIVE = Path(os.environ.get("TRIPTYCH_NATIVE_DIR", ROOT / ".triptych/native"))
BINARY = (ROOT / os.environ.get("TRIPTYCH_BIN", "target/debug/triptych")).resolve()
CHROMIUM_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
]

# Puts files on the page as a person's drag does; selenium cannot drag from outside the browser.
DROP = """
const transfer = new DataTransfer();
const bytes = Uint8Array.from(atob(arguments[1]), (c) => c.charCodeAt(0));
transfer.items.add(new File([bytes], arguments[0], {type: arguments[2]}));
for (const name of ["dragenter", "dragover"]) {
  const event = new DragEvent(name, {dataTransfer: transfer, bubbles: true, cancelable: true});
  document.body.dispatchEvent(event);
}
const veil = document.getElementById("veil");
const hint = veil.hidden ? null : veil.textContent.trim();
const drop = new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
document.body.dispatchEvent(drop);
return hint;
"""


def require(found: bool, what: str) -> None:
    if not found:
        pytest.skip(f"SKIPPED: {what}")


@dataclass
class Server:
    """A running server and the plain API beside the page, to compare the page with."""

    process: subprocess.Popen
    url: str
    key: str | None = None

    def api(self, path: str, body: dict | None = None) -> tuple[int, dict]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        data = None if body is None else json.dumps(body).encode()
        return self.send(path, data, headers)

    def upload(self, name: str, content: bytes, wait: bool = True) -> tuple[int, dict]:
        edge = uuid.uuid4().hex
        head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        data = head.encode() + content + f"\r\n--{edge}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        return self.send(f"/v1/assets?wait={str(wait).lower()}", data, headers)

    def asset_ids(self) -> set[str]:
        return {asset["id"] for asset in self.api("/v1/assets?limit=1000")[1]["data"]}

    def send(
        self, path: str, data: bytes | None, headers: dict, method: str | None = None
    ) -> tuple[int, dict]:
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


def start_server(data: Path, *extra: str, key: str | None = None) -> Server:
    command = [str(BINARY), "serve", "--model", str(MODEL), "--data", str(data)]
    command += ["--listen", "127.0.0.1:0", "--allow-root", str(SAMPLES / "clips"), *extra]
    env = os.environ | {"TRIPTYCH_NATIVE_DIR": str(NATIVE)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True)
    lines: queue.Queue[str] = queue.Queue()
    read = lambda: [lines.put(line) for line in process.stdout]  # noqa: E731
    threading.Thread(target=read, daemon=True).start()
    prefix = "listening on "
    try:
        line = next(line for line in iter(lambda: lines.get(timeout=120), "") if prefix in line)
    except queue.Empty:
        process.kill()
        pytest.fail("the server did not say where it listens")
    server = Server(process, line.split(prefix, 1)[1].strip(), key)
    until(lambda: server.api("/readyz")[0] == 200, "the server to be ready", 120)
    return server


def stop_server(server: Server) -> None:
    server.process.terminate()
    try:
        server.process.wait(30)
    except subprocess.TimeoutExpired:
        server.process.kill()
        pytest.fail("the server did not stop within 30 s of SIGTERM")


def until(check, what: str, secs: float = 30):
    """Waits for a truthy answer and returns it."""
    end = time.monotonic() + secs
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"waited {secs} s in vain for {what}")
        time.sleep(0.1)


@dataclass
class Page:
    """The page in the browser."""

    driver: webdriver.Chrome
    server: Server
    expected_statuses: set[int] = field(default_factory=set)

    def open(self, path: str = "/") -> None:
        self.driver.get(self.server.url + path)
        self.wait(lambda: self.js("return document.readyState") == "complete", "the page to load")

    def js(self, script: str, *args):
        return self.driver.execute_script(script, *args)

    def find(self, css: str):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def wait(self, check, what: str, secs: float = 30):
        return until(check, what, secs)

    def text(self, css: str) -> str:
        return self.find(css).text

    def hits(self) -> list[dict]:
        """What the grid shows, once a search has ended."""

        def ended():
            busy = self.js("return document.getElementById('search-form').ariaBusy") == "true"
            return not busy and (self.all(".hit") or self.shown("#nothing"))

        self.wait(ended, "results")
        return self.js(
            "return [...document.querySelectorAll('.hit')].map((hit) => ({"
            " name: hit.querySelector('.name').textContent,"
            " time: hit.querySelector('.time').textContent,"
            " score: hit.querySelector('.score').textContent,"
            " track: hit.querySelector('.track').textContent}))"
        )

    def shown(self, css: str) -> bool:
        return any(element.is_displayed() for element in self.all(css))

    def problem(self) -> str:
        self.wait(lambda: self.shown("#search-problem"), "an error on the page")
        return self.text("#search-problem")

    def search(self, text: str) -> list[dict]:
        box = self.find("#q")
        box.clear()
        box.send_keys(text + "\n")
        self.wait(lambda: "q=" in self.driver.current_url, "the query in the address")
        return self.hits()

    def drop(self, path: Path, kind: str) -> str | None:
        """Drops a file; what the page said it would do with it."""
        data = base64.b64encode(path.read_bytes()).decode()
        return self.js(DROP, path.name, data, kind)

    def player(self) -> dict | None:
        return self.js(
            "const m = document.querySelector('#player[open] video, #player[open] audio');"
            "return m && {tag: m.localName, now: m.currentTime, paused: m.paused,"
            " ready: m.readyState, length: m.duration, src: m.src}"
        )

    def console_errors(self) -> list[str]:
        severe = [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE"]
        known = [f"status of {status} " for status in self.expected_statuses]
        return [message for message in severe if not any(part in message for part in known)]


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    require(bool(chromium and chromedriver), "no Chromium with its chromedriver on this machine")
    profile = tempfile.mkdtemp(prefix="triptych-page-")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*CHROMIUM_FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    require(BINARY.is_file(), f"{BINARY} is not built")
    require((SAMPLES / "clips").is_dir(), f"{MODEL} has no sample clips")
    running = start_server(tmp_path_factory.mktemp("data"))
    yield running
    stop_server(running)


@pytest.fixture
def page(browser, server):
    """The page with an empty log. Every test also holds that the console stays clean, and what a
    test adds to the library goes again, so that it is not found by the next one."""
    browser.get("about:blank")
    browser.get_log("browser")
    view = Page(browser, server)
    before = server.asset_ids()
    yield view
    for added in server.asset_ids() - before:
        server.send(f"/v1/assets/{added}", None, {}, "DELETE")
    errors = view.console_errors()
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert not errors, "errors in the browser's console:\n" + "\n".join(errors)


@pytest.fixture(scope="session")
def library(browser, server):
    """The sample clips, indexed through the page itself; what was seen on the way."""
    page = Page(browser, server)
    page.open()
    page.wait(lambda: page.shown("#empty-library"), "guidance for an empty library")
    seen = {"guidance": page.text("#empty-library")}
    page.find("#empty-library a").click()
    page.find("#folder-path").send_keys(str(SAMPLES / "clips") + "\n")
    job = page.wait(lambda: page.all(".job"), "the job to be shown")[0]
    states = []

    def ended():
        states.append(job.find_element(By.CSS_SELECTOR, ".state").text)
        return states[-1] in ("Done", "Failed", "Cancelled")

    page.wait(ended, "the folder to be indexed", 300)
    page.wait(lambda: page.all(".asset"), "the files in the list")
    seen |= {"states": states, "job": job.text, "errors": page.console_errors()}
    return seen


@pytest.fixture(scope="session")
def make_media(tmp_path_factory):
    """Makes small media files with the native ffmpeg."""
    found = [p for p in (NATIVE / "ffmpeg").glob("*") if p.is_file() and os.access(p, os.X_OK)]
    require(bool(found), f"no ffmpeg in {NATIVE}")
    folder = tmp_path_factory.mktemp("media")

    def make(name: str, *args: str) -> Path:
        path = folder / name
        command = [str(found[0]), "-y", "-loglevel", "error", *args, "-f", FORMATS[path.suffix]]
        subprocess.run([*command, f"file:{path}"], check=True, timeout=120)
        return path

    return make


FORMATS = {".mp4": "mp4", ".wav": "wav", ".png": "image2"}
