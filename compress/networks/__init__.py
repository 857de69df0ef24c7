"""Networks: creation, published weights, checkpoints, layer shapes."""

WEIGHTS_FILE = "network.safetensors"  # here, because importing compress.networks.checkpoint imports torch
