"""Search spaces: the architectures that a search may try, and how it changes and combines them."""
