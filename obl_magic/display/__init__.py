"""What a user sees of a run: a panel in a notebook, a line in a terminal, a still that stays."""
