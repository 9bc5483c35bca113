"""Errors of a simulation."""


class BenchmarkError(Exception):
    """The simulation cannot be done; the message is a sentence for the user."""
