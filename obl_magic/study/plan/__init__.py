"""Which calls are made: one, a search, an ablation."""
