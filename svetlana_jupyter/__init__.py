"""Classify segmented objects in JupyterLab."""

__version__ = "0.1.0"
