"""Rejects candidates that are not worth the next, dearer step."""
