"""Panels, which display a project and call its methods."""
