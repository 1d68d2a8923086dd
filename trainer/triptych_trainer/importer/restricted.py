"""Reads pickles of arrays without executing them.

A pickle is a program: it may name any callable and call it. Here a name is only ever looked up
in `_NAMES`, and nothing in that table is the real thing: every entry is a small stand-in of this
file that can build one shape of data (an array, a dtype, a mapping) and refuses everything else.
No module is imported and no attribute is followed on behalf of the file.
"""

import math
import pickle
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import TrainerError

MAX_FILE_BYTES = 8 * 2**30
_DTYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
_WORDS = {"O", "O8"}
"""Arrays of objects, of which only lists of strings are read."""


class RefusedError(TrainerError):
    """The file wants something that reading arrays does not need."""


class _Data:
    """Base of what the file may build. State can only be set where a class says how."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise RefusedError(f"a {type(self).__name__.strip('_')} takes no state")

    def __setattr__(self, name: str, value: object) -> None:
        raise RefusedError("attributes cannot be set")


class _Call(_Data):
    """A function the file may call. An instance of a closed class, so its own attributes and
    defaults are out of the file's reach."""

    __slots__ = ("_function",)

    def __init__(self, function) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args):
        return self._function(*args)


class _Marker(_Data):
    """A class that may be named as an argument, and not be called."""

    __slots__ = ()


class _DType(_Data):
    __slots__ = ("name", "order")

    def __init__(self, name: object, *_flags: object) -> None:
        text = name.decode("latin1") if isinstance(name, bytes) else name
        plain = text.lstrip("<>|=") if isinstance(text, str) else ""
        is_text = plain[:1] == "U" and plain[1:].isdigit()
        if not is_text and plain not in _DTYPES | _WORDS:
            raise RefusedError(f"arrays of dtype {text!r} are not read")
        object.__setattr__(self, "name", plain)
        object.__setattr__(self, "order", "<")

    def __setstate__(self, state: object) -> None:
        """numpy's (version, byte order, subarray, names, fields, ...): plain dtypes alone."""
        if not isinstance(state, tuple) or len(state) < 5 or any(s is not None for s in state[2:5]):
            raise RefusedError("structured dtypes are not read")
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise RefusedError(f"unknown byte order {order!r}")
        object.__setattr__(self, "order", order)

    def numpy(self) -> np.dtype:
        return np.dtype(self.name).newbyteorder(self.order)


class _Array(_Data):
    """An array on its way: shape, dtype and bytes, checked against each other."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        object.__setattr__(self, "value", None)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise RefusedError("not the state of an array")
        shape, dtype, fortran, data = state[-4:]
        object.__setattr__(self, "value", _to_numpy(data, dtype, shape, "F" if fortran else "C"))


class _Mapping(dict):
    """haiku's frozendict and FlatMapping, OrderedDict: a dict."""

    __slots__ = ()

    def __init__(self, *args: object) -> None:
        if len(args) > 1 or (args and not isinstance(args[0], (dict, list))):
            raise RefusedError("a mapping is made from a mapping")
        super().__init__(*args)

    def __setstate__(self, state: object) -> None:
        """The slots of a frozendict pickled without a constructor."""
        slots = state[1] if isinstance(state, tuple) and len(state) == 2 else state
        storage = slots.get("_storage", slots.get("_mapping")) if isinstance(slots, dict) else None
        if not isinstance(storage, dict):
            raise RefusedError("not the state of a mapping")
        self.update(storage)


_NDARRAY = _Marker()


def _to_numpy(data: object, dtype: object, shape: object, order: object) -> np.ndarray:
    if not isinstance(dtype, _DType) or order not in ("C", "F"):
        raise RefusedError("not an array")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise RefusedError("not the shape of an array")
    if dtype.name in _WORDS:
        return _words(data, math.prod(shape)).reshape(shape)
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)):
        raise RefusedError("an array without its bytes")
    if len(data) != math.prod(shape) * dtype.numpy().itemsize:
        raise RefusedError("an array's bytes do not fit its shape")
    return np.frombuffer(data, dtype.numpy()).reshape(shape, order=order)


def _words(data: object, count: int) -> np.ndarray:
    if not isinstance(data, list) or len(data) != count:
        raise RefusedError("an array without its strings")
    words = [str(w.value) if isinstance(w, _Array) else w for w in data]
    if not all(isinstance(word, str) for word in words):
        raise RefusedError("arrays of objects may contain only strings")
    return np.array(words, dtype=np.str_)


def _reconstruct(subtype: object, shape: object, code: object) -> _Array:
    if subtype is not _NDARRAY:
        raise RefusedError("only plain arrays are read")
    return _Array()


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.__setstate__((shape, dtype, order == "F", data))
    return array


def _scalar(dtype: object, data: object) -> _Array:
    return _from_buffer(data, dtype, (), "C")


def _jax_array(function: object, args: object, state: object, aval: object) -> _Array:
    """jax pickles an array as numpy's own recipe in pieces."""
    if not isinstance(function, _Call) or not isinstance(args, tuple):
        raise RefusedError("not a jax array")
    array = function(*args)
    if not isinstance(array, _Array):
        raise RefusedError("not a jax array")
    array.__setstate__(state)
    return array


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedError("only bytes in latin1 are read")
    return text.encode("latin1")


def _no_bytes(*args: object) -> bytes:
    """How the oldest protocols write b""."""
    if args:
        raise RefusedError("only empty bytes are made so")
    return b""


_NAMES: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Call(_DType),
    ("_codecs", "encode"): _Call(_encode),
    ("__builtin__", "bytes"): _Call(_no_bytes),
    ("collections", "OrderedDict"): _Mapping,
    ("haiku._src.data_structures", "frozendict"): _Mapping,
    ("haiku._src.data_structures", "FlatMapping"): _Mapping,
    ("haiku._src.data_structures", "FlatMap"): _Mapping,
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _Call(_reconstruct)
    _NAMES[f"{_core}.multiarray", "scalar"] = _Call(_scalar)
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _Call(_from_buffer)
for _place, _name in (
    ("jax._src.array", "_reconstruct_array"),
    ("jax._src.device_array", "reconstruct_device_array"),
    ("jax.interpreters.xla", "reconstruct_device_array"),
):
    _NAMES[_place, _name] = _Call(_jax_array)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        found = _NAMES.get((module, name))
        if found is None:
            raise RefusedError(
                f"the file names {module}.{name}, which is not needed to read arrays"
            )
        return found

    def persistent_load(self, pid: object) -> object:
        raise RefusedError("the file refers to objects outside itself")


def load(path: str | Path) -> object:
    """The content of a pickle: dicts, lists, tuples, strings, numbers and `_Array`s, or
    `RefusedError`. Use `arrays` on what it gives."""
    if Path(path).is_dir():
        raise RefusedError(f"expected a file, but {path} is a folder")
    size = Path(path).stat().st_size
    if size > MAX_FILE_BYTES:
        raise RefusedError(f"{path} has {size} bytes; no known checkpoint is that large")
    with Path(path).open("rb") as file:
        return load_stream(file, path)


def load_stream(file: BinaryIO, name: object) -> object:
    try:
        return _Unpickler(file).load()
    except RefusedError:
        raise
    # A damaged or hostile program can fail anywhere in the interpreter of pickles.
    except Exception as error:
        raise RefusedError(f"{name} is not a readable pickle: {error}") from error


def array(value: object) -> np.ndarray:
    """What the file holds for one array."""
    if isinstance(value, _Array) and value.value is not None:
        return value.value
    raise RefusedError("expected an array")


def two_levels(value: object, what: str) -> dict[str, dict[str, np.ndarray]]:
    """{module: {name: array}}, and nothing deeper."""
    if not isinstance(value, dict):
        raise RefusedError(f"{what} is not a mapping")
    out: dict[str, dict[str, np.ndarray]] = {}
    for module, names in value.items():
        if not isinstance(module, str) or not isinstance(names, dict):
            raise RefusedError(f"{what} is not {{module: {{name: array}}}}")
        out[module] = {}
        for name, leaf in names.items():
            if not isinstance(name, str):
                raise RefusedError(f"{what} has a name that is not a string")
            out[module][name] = array(leaf)
    return out
