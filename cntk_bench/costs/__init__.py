"""Predict what a computation will cost on this machine; compare our speed with another library's."""
