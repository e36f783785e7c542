"""Exceptions whose messages state the problem and what to do about it."""

from __future__ import annotations


class SvetlanaError(Exception):
    """Base class of all errors that this package raises on purpose."""


class InputError(SvetlanaError, ValueError):
    """Image, mask or argument that cannot be used."""


class DamagedError(InputError):
    """Part of an existing file that cannot be read; others may be readable."""


class PatchError(InputError):
    """Patch that cannot be cut at this place or with these settings."""


class SettingsError(InputError):
    """Setting that is unknown, out of range, or in conflict with another setting."""


class ClassifierError(SvetlanaError):
    """Classifier that cannot be read, or does not fit the image."""


class ProjectError(SvetlanaError):
    """Project that cannot be opened, or a request that it does not allow."""
