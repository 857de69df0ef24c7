"""Networks: creation, weights, checkpoints, shapes."""
