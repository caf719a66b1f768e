"""Models that see: a vision tower and a projector before a language model."""
