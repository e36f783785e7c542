"""Object features: shape, intensity, texture, surroundings, position.

`catalog` lists all measurements; `compute` reads the pixels and calls the modules that compute the measurements.
"""
