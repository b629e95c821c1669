"""Analyses of a run beyond its table, from the same Gram matrices; its page and its figures."""
