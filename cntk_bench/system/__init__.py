"""The surroundings: files, locks, signals, memory, paths, and libraries that may be broken."""
