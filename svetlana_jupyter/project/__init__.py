"""The project folder and everything a script or a panel can ask of it."""
