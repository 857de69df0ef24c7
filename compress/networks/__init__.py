"""Networks: creation, published weights, checkpoints, layer shapes."""
