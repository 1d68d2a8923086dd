"""Graphs and their weights file, with networks of a few layers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from triptych_trainer.export import one_minus_cosine
from triptych_trainer.hf.errors import Refused
from triptych_trainer.hf.graphs import Weights, proved, write_graph
from triptych_trainer.hf.parts import Tower
from triptych_trainer.hf.reduce import check

ROWS = np.random.default_rng(3).normal(size=(4, 48)).astype(np.float32)


class Network(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 64))

    def forward(self, pcm: torch.Tensor) -> torch.Tensor:
        return self.layers(pcm)


def tower(network: nn.Module, name: str = "audio", precision: str = "f32") -> Tower:
    @torch.no_grad()
    def reference(feed: dict) -> dict:
        return {"space": network(torch.from_numpy(feed["pcm"])).numpy()}

    made = Tower(name, "audio", network.eval(), {"space": "space"}, {}, [{"pcm": ROWS}], reference)
    made.precision = precision
    return made


def written(towers: list[Tower], folder: Path) -> int:
    """Bytes of the weights file."""
    weights = Weights(folder / "weights.bin")
    for each in towers:
        write_graph(each, folder, weights)
    weights.close()
    for each in towers:
        wanted = [each.reference(feed) for feed in each.feeds]
        error = proved(each, folder / f"{each.name}.onnx", wanted)
        assert error <= {"f32": 1e-6, "f16": 1e-5, "bf16": 1e-4, "int8": 2e-3}[each.precision]
    return (folder / "weights.bin").stat().st_size


def test_equal_weights_lie_in_the_file_once(tmp_path: Path) -> None:
    network, places = Network(1), []
    one = written([tower(network)], tmp_path)
    two = written([tower(network), tower(network, "again")], tmp_path)
    assert one == two
    assert written([tower(network), tower(Network(2), "other")], tmp_path) > 1.5 * one
    for name in ("audio", "other"):
        graph = onnx.load(tmp_path / f"{name}.onnx", load_external_data=False).graph
        assert [i.type.tensor_type.shape.dim[0].dim_param for i in graph.input] == ["batch"]
        for tensor in graph.initializer:
            facts = {entry.key: entry.value for entry in tensor.external_data}
            assert not facts or facts["location"] == "weights.bin"
            places.append(int(facts.get("offset", 0)) % 4096)
    assert set(places) == {0}


@pytest.mark.parametrize(("precision", "share"), [("f16", 0.6), ("bf16", 0.6), ("int8", 0.55)])
def test_reduced_weights(tmp_path: Path, precision: str, share: float) -> None:
    full = written([tower(Network(1))], tmp_path)
    assert written([tower(Network(1), precision=precision)], tmp_path) <= share * full
    with pytest.raises(Refused, match=r"leaves? that range.*--precision f32 or bf16"):
        check("f16", ["f32", "bf16"], "embedding_gemma2")


def test_a_graph_that_is_off_is_refused(tmp_path: Path) -> None:
    weights = Weights(tmp_path / "weights.bin")
    made = tower(Network(1))
    path = write_graph(made, tmp_path, weights)
    weights.close()
    want = made.reference(made.feeds[0])["space"]
    with pytest.raises(Refused, match="disagree, 1 - cosine"):
        proved(made, path, [{"space": want + 0.01 * np.abs(want).max() * ROWS[:, :1]}])
    with pytest.raises(Refused, match="NaN or infinity"):
        proved(made, path, [{"space": np.full_like(want, np.nan)}])
    made.precision = "int8"
    with pytest.raises(Refused, match="loses too much in int8"):
        proved(made, path, [{"space": np.roll(want, 1, 1)}])


class Chaotic(nn.Module):
    """Doubles a difference many times over, as deep networks of random weights do."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layers = nn.ModuleList(nn.Linear(48, 48) for _ in range(layers))

    def forward(self, pcm: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            pcm = torch.sin(12 * layer(pcm))
        return pcm


def test_a_network_is_held_to_what_rounding_does_to_it(tmp_path: Path) -> None:
    made = tower(Chaotic(4))
    weights = Weights(tmp_path / "weights.bin")
    path = write_graph(made, tmp_path, weights)
    weights.close()
    right = made.reference({"pcm": ROWS})["space"]
    # As far off as another order of its sums makes it, and more than a calm network may be.
    made.allowed_error = 1e-13
    error = proved(made, path, [{"space": right}])
    assert made.rounding is not None and 1e-13 < error <= made.rounding < 1e-3
    off = right + 0.02 * np.roll(right, 1, 1)
    assert one_minus_cosine(off, right) < 1e-3, "more than the most that any tower may lose"
    with pytest.raises(Refused, match="disagree"):
        proved(made, path, [{"space": off}])
    calm = tower(Network(1))
    write_graph(calm, tmp_path, weights := Weights(tmp_path / "calm.bin"))
    weights.close()
    proved(calm, tmp_path / "audio.onnx", [calm.reference({"pcm": ROWS})])
    assert calm.rounding is None
