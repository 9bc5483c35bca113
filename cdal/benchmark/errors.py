"""What can be wrong with what somebody asks of a simulation."""


class BenchmarkError(Exception):
    """It cannot be done; the message is a sentence for whoever asked."""
