"""Leaves features, layers and models out of what user functions return."""
