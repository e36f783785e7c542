"""Rendering of images, masks and labels to arrays and PNGs, without widgets."""
