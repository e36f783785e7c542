"""Readers of file formats: from a path to lazy pixels and what the file says about them."""
