"""What can be wrong with files that should be labelled images."""


class DatasetError(Exception):
    """The files are not what is needed; the message is a sentence for whoever named them."""
