"""What is measured of objects, one group of measurements a file; `core.features.compute` reads the pixels and asks
each."""
