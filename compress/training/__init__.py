"""Training loop, data loading, augmentation, losses, optimizers and distillation."""
