"""What `frontrunner bench` measures. Every figure in the documentation comes from one of its records."""
