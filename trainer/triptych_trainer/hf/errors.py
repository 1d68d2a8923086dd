"""What a folder cannot be imported for, as a sentence that says what to do."""


class Refused(Exception):  # noqa: N818: it is a verdict on a folder, not a fault here
    """A sentence for the person who asked."""
