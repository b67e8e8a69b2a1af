"""Which channels `prune` keeps: what is on offer, targets, and how they are met."""
