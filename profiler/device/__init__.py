"""Devices: time, memory, identity, locks and the most that they can do."""
