"""Images, masks, objects, features and statistics.

This package is independent of torch and of the user interface.
"""
