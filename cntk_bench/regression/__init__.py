"""Solving: kernel regression on matrices, whatever kernel they come from."""
