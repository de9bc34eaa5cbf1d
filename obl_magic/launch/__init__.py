"""One run, from a call to its end: in this process or on ranks."""
