"""Object features: shape, intensity, texture, surroundings, orientation and position, computed for stacks of objects.

`catalog` lists all measurements; `compute` reads the pixels and calls the modules that measure them.
"""
