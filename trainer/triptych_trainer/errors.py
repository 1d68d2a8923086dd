"""The message of a failed command: one sentence with the fault and the remedy."""

import errno
import os
import subprocess


class TrainerError(ValueError):
    """A sentence for the person who runs the command."""


DISK_FULL = "the disk is full"
_SYSTEM = {
    errno.ENOENT: "{file} does not exist: check the path",
    errno.EACCES: "{file}: permission denied; check who owns it",
    errno.EPERM: "{file}: the system does not permit it; check who owns it",
    errno.EISDIR: "expected a file, but {file} is a folder",
    errno.EEXIST: "{file} exists already and cannot be used: name another path",
    errno.ENOTDIR: "{file} is not a folder, or is below a file: check the path",
    errno.ENOSPC: DISK_FULL + " ({file}): free some space and run the command again",
    errno.EDQUOT: DISK_FULL + " to your quota ({file}): free some space and run the command again",
    errno.EROFS: "{file} is on a read-only file system",
    errno.EADDRINUSE: "the address is in use: stop what listens there, or choose another port",
}
FAULT = (
    "{name}: {said} (a fault of this program, or an unsupported file: run the command with "
    "--debug for the traceback)"
)


def sentence(error: BaseException) -> str:
    """One line about any error. Our own are sentences already; for the system's, it names the
    file."""
    if isinstance(error, MemoryError):
        return "this machine has too little memory: use smaller batches, or a smaller model"
    if type(error).__name__ == "OutOfMemoryError":
        return "the GPU has too little memory: use a smaller --batch-size"
    if isinstance(error, subprocess.CalledProcessError):
        return _of_program(error)
    if isinstance(error, UnicodeDecodeError):
        return f"expected a text file in UTF-8 ({error}): check the named file"
    if isinstance(error, OSError) and error.errno is not None:
        return _of_system(error)
    said = _one_line(error)
    if isinstance(error, KeyError):
        said = _one_line(error.args[0]) if error.args else ""
        # Ours are raised with a sentence, the interpreter's with the bare key.
        return said if " " in said else FAULT.format(name="a missing key", said=repr(said))
    if isinstance(error, OSError | ValueError | FloatingPointError) or _ours(error):
        return said or FAULT.format(name=type(error).__name__, said="no more is known")
    return FAULT.format(name=type(error).__name__, said=said or "no more is known")


def _ours(error: BaseException) -> bool:
    return type(error).__module__.startswith("triptych_trainer.")


def _of_system(error: OSError) -> str:
    file = error.filename if error.filename is not None else "a file"
    if isinstance(file, bytes):
        file = os.fsdecode(file)
    known = _SYSTEM.get(error.errno)
    if known:
        return known.format(file=file)
    return f"{file}: {error.strerror or 'the system reports an error'}"


def _of_program(error: subprocess.CalledProcessError) -> str:
    command = error.cmd if isinstance(error.cmd, str) else str((error.cmd or ["?"])[0])
    told = error.stderr or b""
    text = told.decode(errors="replace") if isinstance(told, bytes) else told
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = f": {lines[-1]}" if lines else ""
    return f"{os.path.basename(command)} ended with status {error.returncode}{last}"


def _one_line(error: object) -> str:
    """The message without a traceback that another process put into it."""
    text = str(error)
    if "Traceback (most recent call" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2] or text.strip().splitlines()[-1]
    return " ".join(text.split())[:600]


def check_loss(value: float, place: str, advice: str) -> None:
    """Stops a training when the loss is not finite, before the weights learn from it."""
    if value - value != 0:
        raise FloatingPointError(f"{place}: the loss is {value}. {advice}")


LOWER_RATE = "Lower the learning rate (--lr)"
