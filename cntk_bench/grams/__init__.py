"""Gram matrices: cut into tiles, computed, kept on disk, resumed and audited."""
