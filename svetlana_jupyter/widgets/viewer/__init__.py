"""Image viewer: its model, canvas, toolbar and events."""
