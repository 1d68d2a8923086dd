"""A hub on loopback: what `huggingface_hub` asks of one, for folders of a few small files."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

WEIGHTS = ".safetensors"


@dataclass
class Hub:
    """Repositories by name, and how the hub misbehaves."""

    folders: dict[str, Path] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range)"""
    status: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Refusals by repository: (status, X-Error-Code)."""
    cut_after: int | None = None
    """Bytes after which a connection that carries weights breaks, once."""
    busy: bool = False
    """Weights are answered with 503."""
    stall: threading.Event | None = None
    """Where a connection that carries weights stops in the middle until it is set."""
    replaced: dict[str, bytes] = field(default_factory=dict)
    """Bytes that are served under a name in place of the file's."""
    revisions: dict[str, str] = field(default_factory=dict)
    """What a repository claims to be at, whatever its files are."""
    bare: bool = False
    """A mirror that tells no sizes and no hashes."""
    storage: str | None = None
    """Another address, to which weights are redirected as the real hub does."""
    tokens: list[str | None] = field(default_factory=list)
    """What was sent as Authorization."""
    licenses: dict[str, str] = field(default_factory=dict)
    endpoint: str = ""

    def revision(self, repository: str) -> str:
        if repository in self.revisions:
            return self.revisions[repository]
        digest = hashlib.sha1(repository.encode())
        for path in sorted(self.folders[repository].iterdir()):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def info(self, repository: str) -> dict:
        files = [self.file(path) for path in sorted(self.folders[repository].iterdir())]
        card = {"license": self.licenses.get(repository, "apache-2.0")}
        return {
            "id": repository,
            "modelId": repository,
            "sha": self.revision(repository),
            "private": False,
            "gated": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "cardData": card,
            "siblings": files,
        }

    def file(self, path: Path) -> dict:
        data = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        found = {"rfilename": path.name, "size": len(data), "blobId": blob}
        if path.suffix == WEIGHTS:
            sha = hashlib.sha256(data).hexdigest()
            found["lfs"] = {"sha256": sha, "size": len(data), "pointerSize": 134}
        return found

    def asked(self, part: str) -> list[tuple[str, str, str | None]]:
        return [request for request in self.requests if part in request[1]]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        self.hub.tokens.append(self.headers.get("Authorization"))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            repository, rest = "/".join(parts[2:4]), parts[4:]
        else:
            repository, rest = "/".join(parts[:2]), parts[2:]
        if repository in self.hub.status:
            return self.refuse(*self.hub.status[repository])
        if repository not in self.hub.folders:
            # As the real one does: a private repository is not told from none.
            return self.refuse(401, "RepoNotFound")
        revision = self.hub.revision(repository)
        if len(rest) >= 2 and rest[1] not in ("main", revision):
            return self.refuse(404, "RevisionNotFound")
        if parts[:2] == ["api", "models"]:
            assert not rest or rest[0] == "revision", self.path
            info = self.hub.info(repository)
            if self.hub.bare or "blobs" not in parse_qs(urlsplit(self.path).query):
                info["siblings"] = [{"rfilename": f["rfilename"]} for f in info["siblings"]]
            return self.send(json.dumps(info).encode(), {"Content-Type": "application/json"}, body)
        assert rest[0] == "resolve", self.path
        path = self.hub.folders[repository] / rest[2]
        if not path.is_file():
            return self.refuse(404, "EntryNotFound")
        if self.hub.storage and path.suffix == WEIGHTS:
            self.send_response(302)
            self.send_header("Location", self.hub.storage + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return self.file(path, revision, body)

    def file(self, path: Path, revision: str, body: bool) -> None:
        weights = path.suffix == WEIGHTS
        if weights and body and self.hub.busy:
            return self.refuse(503, "")
        data = self.hub.replaced.get(path.name, path.read_bytes())
        described = self.hub.file(path)
        etag = described["lfs"]["sha256"] if weights else described["blobId"]
        headers = {
            "ETag": f'"{etag}"',
            "X-Repo-Commit": revision,
            "X-Linked-Etag": f'"{etag}"',
            "X-Linked-Size": str(described["size"]),
            "Accept-Ranges": "bytes",
        }
        return self.send(data, headers, body, weights)

    def send(self, data: bytes, headers: dict, body: bool, weights: bool = False) -> None:
        asked, first = self.headers.get("Range"), 0
        if asked:
            first = int(asked.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        self.send_response(206 if asked else 200)
        headers["Content-Length"] = str(len(data) - first)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        rest, cut = data[first:], self.hub.cut_after
        if weights and cut is not None:
            self.hub.cut_after = None
            self.hub.busy = True
            self.wfile.write(rest[:cut])
            self.wfile.flush()
            if self.hub.stall is not None:
                self.hub.stall.wait(60)
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(rest)

    def refuse(self, status: int, code: str) -> None:
        body = json.dumps({"error": code}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    handler = type("OfHub", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
