"""Gallery: pages of object thumbnails."""
