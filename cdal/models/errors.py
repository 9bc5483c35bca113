"""Errors about networks. Every message is a sentence that a user can act on."""


class ModelError(Exception):
    """A network cannot be created, loaded, trained or used as requested."""


class UnlabelledError(ModelError):
    """No pixel of the images has a label."""


class Stopped(Exception):  # noqa: N818 (a request was followed; nothing failed)
    """Work ended early because the caller requested it; weights stay as they are at that point."""
