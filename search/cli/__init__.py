"""The command line: reads arguments, calls the rooms, prints what they return."""
