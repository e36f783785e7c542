"""What can go wrong, in the user's words: what was expected, what was got, what to try."""

from __future__ import annotations


class SvetlanaError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(SvetlanaError, ValueError):
    """An image, a mask or an argument cannot be used as it is."""


class DamagedError(InputError):
    """A piece of a file cannot be read, though the file is there; other pieces may well be."""


class PatchError(InputError):
    """A patch cannot be cut there or with these settings."""


class SettingsError(InputError):
    """A setting is unknown, out of range or contradicts another."""


class ClassifierError(SvetlanaError):
    """A classifier cannot be read, or does not fit the image it is given."""


class ProjectError(SvetlanaError):
    """A project folder cannot be opened, or does not allow what was asked."""
