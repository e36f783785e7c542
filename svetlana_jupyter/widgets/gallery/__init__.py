"""Gallery: pages of object patches."""
