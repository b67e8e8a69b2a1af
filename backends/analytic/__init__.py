"""Devices that are not at hand: what padding costs there, by arithmetic alone."""
