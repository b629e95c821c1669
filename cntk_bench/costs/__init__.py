"""What a computation will cost on this machine, before it is spent; our speed beside another library's."""
