"""The version of this package, as it is installed."""

from importlib.metadata import version

VERSION = version("label-studio-cdal")
