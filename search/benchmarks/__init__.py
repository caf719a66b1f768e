"""What `frontrunner bench` measures and writes records of."""
