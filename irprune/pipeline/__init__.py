"""Pipelines: their language, the options and names of passes, and the manager that runs them."""
