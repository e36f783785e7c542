"""Project folder and the operations on it, for scripts and panels."""
