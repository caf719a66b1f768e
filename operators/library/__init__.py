"""One file an operator; the file name is its name. See CONTRIBUTING.md for how to add one."""
