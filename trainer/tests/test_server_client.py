"""The client of the server against a stand-in that speaks the documented API."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from triptych_trainer.server import Client, ServerError, running_server, wav_uri
from triptych_trainer.world.heldout import held_out_set
from triptych_trainer.world.serve_eval import retrieval


class StandIn(BaseHTTPRequestHandler):
    """A job that needs two looks, and a search that always finds the same three files."""

    looks = 0

    def answer(self, status: int, body: dict) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self) -> None:
        StandIn.looks += 1
        state = "done" if StandIn.looks > 1 else "running"
        self.answer(200, {"id": "job_1", "state": state, "items_failed": 0, "clips": 3})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/jobs":
            assert body["type"] == "index"
            self.answer(202, {"id": "job_1", "state": "queued", "items_failed": 0})
        elif self.path == "/v1/embeddings":
            rows = [{"index": i, "embedding": [float(i), 1.0]} for i in range(len(body["input"]))]
            self.answer(200, {"data": rows[::-1]})
        elif "nothing" in str(body["query"]):
            self.answer(422, {"error": {"code": "no_known_words"}})
        else:
            names = enumerate(["a.mp4", "b.mp4", "c.mp4"])
            hits = [{"asset_name": name, "score": 0.9 - 0.1 * i} for i, name in names]
            self.answer(200, {"data": hits})

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def client() -> Iterator[Client]:
    server = HTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Client(f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()


def test_calls(client: Client) -> None:
    assert client.index_folder(Path("/media"), poll_secs=0.01)["clips"] == 3
    assert client.search({"text": "a red ring"}, "video", 3)[0] == ("a.mp4", 0.9)
    assert client.embed_texts(["x", "y"]).tolist() == [[0.0, 1.0], [1.0, 1.0]]
    with pytest.raises(ServerError, match=r"422.*no_known_words"):
        client.search({"text": "nothing known"}, "video", 3)


def test_retrieval_over_the_api(client: Client) -> None:
    report = retrieval(client, held_out_set(0, 3), ["a.mp4", "b.mp4", "c.mp4"])
    assert report["text->video"]["r@1"] == pytest.approx(1 / 3)
    assert report["audio->video"]["median_rank"] == 2.0


def test_sound_as_a_data_uri() -> None:
    assert wav_uri(np.zeros(10, np.float32)).startswith("data:audio/wav;base64,UklGR")


def test_starting_a_server(tmp_path: Path) -> None:
    binary = tmp_path / "triptych"
    line = "import time; print('listening on http://127.0.0.1:9', flush=True); time.sleep(60)"
    binary.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{line}"\n')
    binary.chmod(0o755)
    with running_server(binary, tmp_path, tmp_path, tmp_path, start_secs=20) as client:
        assert client.address == "http://127.0.0.1:9"
    binary.write_text("#!/bin/sh\nexit 3\n")
    with (
        pytest.raises(ServerError, match="ended before"),
        running_server(binary, tmp_path, tmp_path, tmp_path),
    ):
        pass
