"""The event stream: what ranks say, how it is written as lines, and what it amounts to."""
