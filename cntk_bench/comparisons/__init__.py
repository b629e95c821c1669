"""Solves beside each other: which settings they share, paired tests, and sweeps that make them."""
