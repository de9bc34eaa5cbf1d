"""What a user calls from Python: run, search, ablate, verify. Checks what was asked for, then calls one thing below."""
