"""The latency table: what each layer costs, and from it what a whole model costs."""
