"""Calling Label Studio's API."""
