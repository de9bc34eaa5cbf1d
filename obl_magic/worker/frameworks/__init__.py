"""One folder per framework that is made oblivious."""
