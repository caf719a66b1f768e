"""One search from start to end, its record and what is read from it."""
