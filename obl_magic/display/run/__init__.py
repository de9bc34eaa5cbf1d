"""One run, as values, as text, as HTML."""
