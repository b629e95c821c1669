"""What is found of a run beyond its table, from the same matrices; its page and its figures."""
