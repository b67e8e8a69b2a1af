"""What is known about the slices of each value: constants, and which slices are equal."""

from irprune.facts.domain import Facts
from irprune.facts.flow import Flow

__all__ = ["Facts", "Flow"]
