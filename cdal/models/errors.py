"""What can go wrong with a network. Every message is a sentence that a user can act on."""


class ModelError(Exception):
    """A network that cannot be made, loaded, trained or used as asked."""


class Stopped(Exception):  # noqa: N818 (a request that was followed, not an error)
    """Training ended because its caller asked for it; the weights are those of that moment."""
