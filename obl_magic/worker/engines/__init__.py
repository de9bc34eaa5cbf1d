"""The collectives, one file per engine."""
