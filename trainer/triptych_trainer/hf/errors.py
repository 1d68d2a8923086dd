"""The reason why a folder cannot be imported, as a sentence with the remedy."""

from ..errors import TrainerError


class Refused(TrainerError):  # noqa: N818: it is a verdict on a folder, not a fault here
    """A sentence for the person who asked."""
