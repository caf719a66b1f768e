"""Templates of the modules in a folder of `--format huggingface-code`."""
