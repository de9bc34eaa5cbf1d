"""One study, as values, as text, as HTML."""
