"""What is held and kept of runs. Starts nothing."""
