"""Experiments beside the search: the depth-width law, and the studies.

The studies measure what operators, short trainings, weight normalization and learning-rate transfer are
worth.
"""
