"""What a search may try."""
