"""Readers of images, masks, outlines and tables."""
