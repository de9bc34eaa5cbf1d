"""Many calls of one function: trials in worlds that are used again, and what becomes of them."""
