"""What to evaluate next."""
