"""What is raised where a setting is wrong; apart, so that whoever reads settings needs no torch."""

from __future__ import annotations


class SettingsError(ValueError):
    """Settings that cannot be used; the message is one sentence for whoever typed them."""
