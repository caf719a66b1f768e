"""One file an operator; the file name is its name. See docs/extending.md for how to add one."""
