"""One model takes over from another while queries go on: none fails, and none is answered by a mix
of the two."""

import threading
import time
from collections import Counter
from pathlib import Path

from support import tiny

from triptych_trainer.export import export_bundle
from triptych_trainer.server import Client

SAMPLES = Path(__file__).parents[2] / "models/small-world/samples/clips"
TEXTS = ("a red circle", "a blue square moving left", "a star")
THREADS = 4


def answer(client: Client, text: str, model: str | None = None) -> tuple[str, tuple]:
    """(model that answered, its hits with their scores)."""
    body = {"query": {"text": text}, "targets": ["video", "audio"], "model": model, "limit": 20}
    found = client.call("POST", "/v1/search", body)
    return found["model"], tuple((hit["asset_id"], hit["score"]) for hit in found["data"])


def caught_up(client: Client, name: str) -> None:
    for _ in range(600):
        models = {model["id"]: model for model in client.call("GET", "/v1/models")["data"]}
        if models[name]["caught_up"]:
            return
        time.sleep(0.1)
    raise AssertionError(models)


def test_queries_go_on_through_switches(serve, tmp_path: Path) -> None:
    for seed, name in enumerate(("first", "second")):
        export_bundle(tiny(seed=seed), tmp_path / name, name, {}, {})
    known: dict[tuple[str, str], tuple] = {}
    counted: Counter = Counter()
    wrong: list = []
    done = threading.Event()

    def ask(client: Client) -> None:
        n = 0
        while not done.is_set():
            text = TEXTS[n % len(TEXTS)]
            n += 1
            try:
                name, hits = answer(client, text)
            except Exception as error:
                wrong.append(repr(error))
                return
            counted[name] += 1
            if known[name, text] != hits:
                wrong.append((name, text, hits))

    with serve(tmp_path / "first", SAMPLES, "--model-root", str(tmp_path)) as client:
        client.index_folder(SAMPLES)
        client.call("POST", "/v1/models", {"path": str(tmp_path / "second")})
        caught_up(client, "second")
        for name in ("first", "second"):
            for text in TEXTS:
                known[name, text] = answer(client, text, name)[1]
                assert len(known[name, text]) >= 10
        # The models must differ, or nothing is shown.
        assert all(known["first", text] != known["second", text] for text in TEXTS)
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for name, before in (("second", "first"), ("first", "second"), ("second", "first")):
            client.call("POST", f"/v1/models/{name}/promote")
            time.sleep(0.5)
            client.call("POST", "/v1/models", {"path": str(tmp_path / before)})
            caught_up(client, before)
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:3]
    print(f"answers: {dict(counted)}")
    assert counted["first"] > 20 and counted["second"] > 20
