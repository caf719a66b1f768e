"""What `frontrunner bench` measures and writes records of: every figure in the documentation comes from one."""
