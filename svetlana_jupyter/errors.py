"""Exceptions whose messages state the problem and what to do about it."""

from __future__ import annotations


class SvetlanaError(Exception):
    """Base class of all errors that this package raises on purpose."""

    remedy = ""


class InputError(SvetlanaError, ValueError):
    """Error for an image, mask or argument that cannot be used.

    Attributes
    ----------
    remedy : str
        What makes an image and its mask usable: "swap" for exchanging them, or a repair of `Project.add_images`;
        otherwise "".
    """

    def __init__(self, message: object = "", remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class DamagedError(InputError):
    """Error for an unreadable part of an existing file."""


class PatchError(InputError):
    """Error for a patch that cannot be cut out at a position or with its settings."""


class SettingsError(InputError):
    """Error for a setting that is unknown, out of range or in conflict with others."""


class ClassifierError(SvetlanaError):
    """Error for a classifier that cannot be read or does not fit the image."""


class ProjectError(SvetlanaError):
    """Error for a project that cannot be opened or does not allow a request."""


class ResultWarning(UserWarning):
    """Warning that results of an image may be wrong."""
