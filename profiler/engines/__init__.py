"""What a model costs in the engines of others, by its exported file."""
