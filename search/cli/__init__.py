"""The command line: reads arguments, calls the other folders, prints what they return."""
