"""The names of the engines that run our models; `operators.published.engines` says what each loads."""

from typing import Literal

Engine = Literal["transformers", "llama.cpp", "vllm", "sglang"]
ENGINES: tuple[Engine, ...] = ("transformers", "llama.cpp", "vllm", "sglang")
