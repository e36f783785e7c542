"""Exceptions of this package, with messages that state the problem and what to do about it."""

from __future__ import annotations


class SvetlanaError(Exception):
    """Base class of all errors that this package raises on purpose."""


class InputError(SvetlanaError, ValueError):
    """Error for an image, mask or argument that cannot be used."""


class DamagedError(InputError):
    """Error for an unreadable part of an existing file, of which other parts may be readable."""


class PatchError(InputError):
    """Error for a patch that cannot be cut out at a position or with its settings."""


class SettingsError(InputError):
    """Error for a setting that is unknown, out of range, or in conflict with another setting."""


class ClassifierError(SvetlanaError):
    """Error for a classifier that cannot be read or does not fit the image."""


class ProjectError(SvetlanaError):
    """Error for a project folder that cannot be opened, or a request that the project does not allow."""
