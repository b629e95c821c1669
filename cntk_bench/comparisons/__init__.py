"""Comparison of solves: which settings they share, paired tests, and sweeps that make them."""
