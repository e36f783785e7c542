"""What is measured of objects, one group of measurements a file; `core.measure` reads the pixels and asks each."""
