"""Searchers: they propose the candidate to evaluate next."""
