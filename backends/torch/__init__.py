"""What torch runs: lowering and training."""
