"""Statistics: metrics, intervals, calibration, counts and model selection."""
