"""Reads files that users name, and reports a wrong or damaged one by its name."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import TrainerError, sentence


@contextmanager
def of_file(path: Path | str, expected: str) -> Iterator[None]:
    """What fails inside is the file's fault, unless the system could not open it: `expected` says
    what it should be."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise TrainerError(f"{path} is not {expected}, or is damaged ({error})") from error
        raise
    except TrainerError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise TrainerError(
            f"{path} is not {expected}, or is damaged ({type(error).__name__}: {said})"
        ) from error


def read_text(path: Path | str) -> str:
    with of_file(path, "text in UTF-8"):
        return Path(path).read_text(encoding="utf-8")


def read_json(path: Path | str, expected: str) -> dict[str, Any]:
    """The object in a file."""
    with of_file(path, expected):
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"a JSON {type(value).__name__}, not an object")
        return value


def read_torch(path: Path | str, expected: str, *, weights_only: bool = True) -> Any:
    """What `torch.save` wrote; tensors and plain values alone, unless the file is our own."""
    import torch

    with of_file(path, expected):
        return torch.load(path, map_location="cpu", weights_only=weights_only)


def read_rows(path: Path | str, columns: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """The rows of a CSV whose first line names the columns."""
    file = Path(path)
    with of_file(path, "a CSV file in UTF-8"), file.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise TrainerError(
                f"{path}: no column {', '.join(missing)}; its first line must name the columns "
                f"{', '.join(columns)}"
            )
        rows = list(reader)
    for number, row in enumerate(rows):
        if short := [name for name in columns if row[name] is None]:
            raise TrainerError(f"{path}, row {number + 2}: no value in column {', '.join(short)}")
    return rows


def read_lines(path: Path | str, expected: str, parse: Callable[[str], Any]) -> list[Any]:
    """`parse` of every line that is not empty."""
    found = []
    for number, line in enumerate(read_text(path).splitlines()):
        if line.strip():
            try:
                found.append(parse(line))
            except (ValueError, IndexError, KeyError):
                raise TrainerError(
                    f"{path}, line {number + 1}: expected {expected}, found {line[:80]!r}"
                ) from None
    return found


def check_finite(module: Any, path: Path | str) -> None:
    """Refuses a network with weights that are not finite."""
    for name, value in module.state_dict().items():
        if not bool(value.isfinite().all()):
            raise TrainerError(
                f"{path} has {name} with nan or infinity: the training diverged or the file is "
                "damaged; use an earlier checkpoint, or download it again"
            )


def fill(module: Any, state: Any, path: Path | str, whose: str, **options: Any) -> None:
    """Loads a state dict that has to fit, tensor by tensor."""
    try:
        module.load_state_dict(state, **options)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        first = (lines[1] if len(lines) > 1 else sentence(error))[:300]
        raise TrainerError(f"the weights in {path} do not fit {whose}: {first}") from error
