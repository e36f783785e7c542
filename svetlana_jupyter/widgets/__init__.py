"""Panels, which show a project and call its methods."""
