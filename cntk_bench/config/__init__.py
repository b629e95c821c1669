"""The settings of a run: its YAML as it is read, checked, and written with comments."""
