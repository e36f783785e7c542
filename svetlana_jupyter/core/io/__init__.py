"""Input of images, masks, outlines and tables: file formats, lazy pixels and metadata."""
