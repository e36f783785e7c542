"""The panels: they show the project and call its verbs."""
