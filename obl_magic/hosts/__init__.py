"""Which hosts a world's ranks are on, and how many on each. Starts nothing, asks no host."""
