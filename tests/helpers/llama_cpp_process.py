"""Runs a GGUF file in llama.cpp. A process of its own, as llama.cpp ends the process where it cannot go on.

Reads the questions as JSON from the standard input, and writes the answers to the file that they name.
"""

import json
import os
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import xllamacpp


def main() -> None:
    asked = json.load(sys.stdin)
    os.environ["LLAMA_MEDIA_MARKER"] = asked["marker"]  # else it is another one each time
    server = _server(asked)
    scored = [_completion(server, asked["vocabulary"], **prompt) for prompt in asked["prompts"]]
    ids = [
        _posted(server, "tokenize", {"content": text, "parse_special": False})["tokens"]
        for text in asked["texts"]
    ]
    seen = [_seen(server, asked["vocabulary"], **prompt) for prompt in asked["seen"]]
    content = {"scored": [*scored, *seen], "ids": ids}
    Path(asked["answers"]).write_text(json.dumps(content), encoding="utf-8")


def _server(asked: dict) -> xllamacpp.Server:
    params = xllamacpp.CommonParams()
    params.model.path = asked["path"]
    if asked["mmproj"]:
        params.mmproj.path = asked["mmproj"]
        params.image_min_tokens = params.image_max_tokens = asked["image_tokens"]
    params.n_ctx = 256
    params.n_parallel = params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = params.fit_params = False
    # By default the cache has 16 bits a number.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(params)


def _completion(server: xllamacpp.Server, vocabulary: int, *, tokens: list[int], steps: int) -> dict:
    """The tokens that follow a prompt, and before each of them the log-probability of every token."""
    request = {"prompt": tokens, "n_predict": steps, "n_probs": vocabulary, "temperature": 0.0}
    answer = server.handle_completions({**request, "cache_prompt": False, "ignore_eos": True})
    generated = answer["choices"][0]["logprobs"]["content"]
    return _scored(generated, vocabulary)


def _seen(server: xllamacpp.Server, vocabulary: int, *, text: str, images: list[str], steps: int) -> dict:
    """The same of a text with images (base64), which also tells how many tokens the prompt has."""
    prompt = {"prompt_string": text, "multimodal_data": images}
    request = {"prompt": prompt, "n_predict": steps, "n_probs": vocabulary, "temperature": 0.0}
    answer = _posted(server, "completion", {**request, "cache_prompt": False, "ignore_eos": True})
    return {
        **_scored(answer["completion_probabilities"], vocabulary),
        "prompt_tokens": answer["tokens_evaluated"],
    }


def _scored(generated: list[dict], vocabulary: int) -> dict:
    rows = []
    for step in generated:
        row = [0.0] * vocabulary
        for token in step["top_logprobs"]:
            row[token["id"]] = token["logprob"]
        rows.append(row)
    return {"tokens": [step["id"] for step in generated], "log_probabilities": rows}


def _posted(server: xllamacpp.Server, what: str, content: dict) -> dict:
    url = f"{server.listening_address}/{what}"
    request = Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urlopen(request) as response:  # noqa: S310 - the server of this process
        return json.load(response)


if __name__ == "__main__":
    main()
