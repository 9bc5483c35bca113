"""Errors about files of labelled images."""


class DatasetError(Exception):
    """The files are not usable; the message is a sentence for the user who named them."""
