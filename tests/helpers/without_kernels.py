"""Makes `transformers` use its definitions in plain PyTorch where kernel libraries are installed too.

Every test that makes a model of `transformers` makes it in here: the first one decides for the process.
"""

from profiler.engines.in_transformers import plain_definitions

__all__ = ["plain_definitions"]
