"""Rendering of images, masks and labels to arrays and PNGs, independent of widgets."""
