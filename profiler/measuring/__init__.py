"""Measures an architecture on a device."""
