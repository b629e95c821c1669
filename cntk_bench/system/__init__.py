"""The system around the program: files, locks, signals, memory, paths, and possibly broken libraries."""
