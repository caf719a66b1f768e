"""Processes that measure, so that a crash takes nothing else with it."""
