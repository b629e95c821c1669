"""What a run is asked to do: its YAML as it is read, checked, and written with comments."""
