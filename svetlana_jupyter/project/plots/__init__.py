"""Results as matplotlib figures: every function returns a `Figure` of its own, and none touches pyplot."""
