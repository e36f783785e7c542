"""Neural networks and random forests: training and prediction."""
