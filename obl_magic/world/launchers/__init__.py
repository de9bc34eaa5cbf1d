"""One file per launcher: all that is known of it."""
