"""Groups of ranks that came up together: how they are started and how they end."""
