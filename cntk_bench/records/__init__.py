"""A run's directory, its record and its solves, and the provenance of its numbers."""
