"""What a run did and where it is kept: its directory, its record, its solves, and where numbers come from."""
