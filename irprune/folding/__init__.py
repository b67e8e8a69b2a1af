"""Constants and shape arithmetic of a graph: what can be known without running it."""
