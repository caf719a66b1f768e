"""Output for people: tables, plots and progress."""
