"""Helpers that several tests share: servers, projects, images, and fakes named as such."""
