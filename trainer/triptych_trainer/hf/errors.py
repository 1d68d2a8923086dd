"""What a folder cannot be imported for, as a sentence that says what to do."""

from ..errors import TrainerError


class Refused(TrainerError):  # noqa: N818: it is a verdict on a folder, not a fault here
    """A sentence for the person who asked."""
