"""What other tools and tables say of objects: each reader gives rows, and one place takes them in."""
