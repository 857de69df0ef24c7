"""Networks: creation, published weights, checkpoints, layer shapes."""

WEIGHTS_FILE = "network.safetensors"  # here, because importing compress.networks.checkpoint imports torch
PRUNED = "pruned"  # key in the metadata of a file of weights: "true" for a network with fewer channels
FUSED = "fused"  # the same for a network whose branches are fused
