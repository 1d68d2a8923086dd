"""Hostile and honest pickles against the restricted reader."""

import io
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from triptych_trainer.importer import restricted
from triptych_trainer.importer.restricted import RefusedError


class Runs:
    """Pickles as a call."""

    def __init__(self, function, *args) -> None:
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def marker(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "executed"
    return path, f"touch {path}"


def put(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    return path


def stack_global(module: str, name: str) -> bytes:
    text = lambda s: b"\x8c" + bytes([len(s)]) + s.encode()  # noqa: E731
    return text(module) + text(name) + b"\x93"


HOSTILE = {
    "os.system": lambda m: pickle.dumps(Runs(os.system, m)),
    "old protocol": lambda m: b"cposix\nsystem\n(S'" + m.encode() + b"'\ntR.",
    "eval": lambda m: pickle.dumps(Runs(eval, f"__import__('os').system({m!r})")),
    "exec": lambda m: pickle.dumps(Runs(exec, f"import os; os.system({m!r})")),
    "getattr": lambda m: (
        b"\x80\x04" + stack_global("builtins", "getattr") + stack_global("os", "path") + b"\x86R."
    ),
    "dotted name": lambda m: b"\x80\x04" + stack_global("numpy", "ndarray.__reduce__") + b".",
    "attribute of the allowed": lambda m: (
        b"\x80\x04" + stack_global("numpy", "dtype.__init__.__globals__") + b"."
    ),
    "numpy.load": lambda m: pickle.dumps(Runs(np.load, "x.npy")),
    "numpy.frombuffer": lambda m: pickle.dumps(Runs(np.frombuffer, b"1234")),
    "import": lambda m: pickle.dumps(Runs(__import__, "antigravity")),
    "the reader itself": lambda m: (
        b"\x80\x04" + stack_global("triptych_trainer.importer.restricted", "load") + b"."
    ),
    "inst": lambda m: b"(S'" + m.encode() + b"'\nios\nsystem\n.",
    "obj": lambda m: b"(cos\nsystem\nS'" + m.encode() + b"'\no.",
    "persistent id": lambda m: b"Pos.system\n.",
    "extension": lambda m: b"\x82\x01.",
    "class of another": lambda m: pickle.dumps(Path("x")),
}


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_nothing_is_executed(tmp_path: Path, kind: str) -> None:
    executed, command = marker(tmp_path)
    before = set(sys.modules)
    with pytest.raises(RefusedError):
        restricted.load(put(tmp_path, HOSTILE[kind](command)))
    assert not executed.exists()
    assert set(sys.modules) == before


NDARRAY = stack_global("numpy", "ndarray")
RECONSTRUCT = stack_global("numpy._core.multiarray", "_reconstruct")
FLOAT = stack_global("numpy", "dtype") + b"\x8c\x02f4\x85R"
ZERO = b"K\x00\x85"
EMPTY = b"\x80\x04" + RECONSTRUCT + NDARRAY + ZERO + b"C\x01b\x87R"
ABUSES = {
    "another class to reconstruct": b"\x80\x04"
    + RECONSTRUCT
    + RECONSTRUCT
    + ZERO
    + b"C\x01b\x87R.",
    "a class of the file's choice": b"\x80\x04"
    + RECONSTRUCT
    + stack_global("collections", "OrderedDict")
    + ZERO
    + b"C\x01b\x87R.",
    "bytes that do not fit": EMPTY + b"(K\x01" + b"K\xff\x85" + FLOAT + b"\x89C\x041234tb.",
    "a negative shape": EMPTY + b"(K\x01" + b"J\xff\xff\xff\xff\x85" + FLOAT + b"\x89C\x041234tb.",
    "objects as elements": EMPTY
    + b"(K\x01K\x01\x85"
    + stack_global("numpy", "dtype")
    + b"\x8c\x01O\x85R"
    + b"\x89]}atb.",
    "a structured dtype": b"\x80\x04" + stack_global("numpy", "dtype") + b"\x8c\x05f4,f4\x85R.",
    "a void dtype": b"\x80\x04" + stack_global("numpy", "dtype") + b"\x8c\x03V16\x85R.",
    "state on a function": b"\x80\x04" + RECONSTRUCT + b"}\x8c\x01aK\x01sb.",
    "state on a class": b"\x80\x04"
    + stack_global("collections", "OrderedDict")
    + b"}\x8c\x01aK\x01sb.",
    "slots on a function": b"\x80\x04" + RECONSTRUCT + b"N}\x8c\x0c__defaults__K\x01s\x86b.",
    "a call of what is no function": b"\x80\x04" + NDARRAY + b")R.",
    "a huge string": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.",
    "cut off": EMPTY,
    "nothing": b"",
    "noise": bytes(range(256)),
}


@pytest.mark.parametrize("kind", list(ABUSES))
def test_allowed_names_cannot_be_abused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(RefusedError):
        restricted.load(put(tmp_path, ABUSES[kind]))


def test_mutated_checkpoints_never_do_more_than_fail() -> None:
    """Every outcome of random damage is data or a refusal; nothing new is imported."""
    content = {"params": {"m": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}}, "state": {}}
    honest = bytearray(pickle.dumps(content, protocol=4))
    rng, before = np.random.default_rng(0), set(sys.modules)
    for _ in range(3000):
        damaged = bytearray(honest)
        for _ in range(rng.integers(1, 6)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            loaded = restricted.load_stream(io.BytesIO(damaged), "damaged")
            restricted.two_levels(loaded, "file")
        except RefusedError:
            continue
    assert set(sys.modules) == before


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_come_back(tmp_path: Path, protocol: int) -> None:
    values = {
        "c": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "scalar": np.float32(2.5),
        "zero": np.array(5, np.int32),
        "none": np.zeros((0, 3), np.float32),
        "big endian": np.arange(3, dtype=">f4"),
    }
    got = restricted.load(put(tmp_path, pickle.dumps({"m": values}, protocol)))
    for name, array in restricted.two_levels(got, "file")["m"].items():
        assert np.array_equal(array, values[name]) and array.shape == values[name].shape, name


def test_old_numpy_names_are_read(tmp_path: Path) -> None:
    data = pickle.dumps({"m": {"w": np.ones(3, np.float32)}}, 2)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert restricted.two_levels(restricted.load(put(tmp_path, old)), "f")["m"]["w"].sum() == 3


def module_with(name: str, **members) -> types.ModuleType:
    module = types.ModuleType(name)
    for key, value in members.items():
        value.__module__, value.__qualname__ = name, key
        setattr(module, key, value)
    return module


def test_haiku_mappings_and_jax_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FlatMapping(dict):
        def __reduce__(self):
            return FlatMapping, (dict(self),)

    class frozendict:
        __slots__ = ("_hash", "_storage")

        def __init__(self, storage) -> None:
            self._storage, self._hash = storage, 1

    def _reconstruct_array(function, args, state, aval_state):
        raise AssertionError("the reader must not call the real one")

    class Array:
        def __init__(self, value) -> None:
            self.value = value

        def __reduce__(self):
            function, args, state = self.value.__reduce__()
            aval = {"weak_type": False, "named_shape": {}}
            return _reconstruct_array, (function, args, state, aval)

    haiku = module_with(
        "haiku._src.data_structures", FlatMapping=FlatMapping, frozendict=frozendict
    )
    jax = module_with("jax._src.array", _reconstruct_array=_reconstruct_array)
    for module in (haiku, jax):
        for depth in range(1, 4):
            part = ".".join(module.__name__.split(".")[:depth])
            monkeypatch.setitem(sys.modules, part, module if depth == 3 else types.ModuleType(part))
    value = np.arange(4, dtype=np.float32)
    data = pickle.dumps(FlatMapping({"m": frozendict({"w": Array(value)})}), protocol=4)
    monkeypatch.undo()
    got = restricted.two_levels(restricted.load(put(tmp_path, data)), "file")
    assert np.array_equal(got["m"]["w"], value)
