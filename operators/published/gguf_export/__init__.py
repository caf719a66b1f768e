"""Our models as GGUF files, which llama.cpp runs."""
