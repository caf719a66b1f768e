"""Experiments beside the search: the depth-width law, and what operators, short trainings and normalization
are worth.
"""
