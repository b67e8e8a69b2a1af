"""Exploring many pruned networks of one model."""
