"""Networks, forests, training and prediction."""
