#!/usr/bin/env bash
# llama-server b11549 (xllamacpp 2026.10.11549): a token that ends within a UTF-8 character has no probability in the
# answer, so the lists of tokens and of probabilities differ in length.
#
# With n_probs, /completion gives completion_probabilities, and /v1/completions gives logprobs. Both read as if there
# were one entry a token. Text is sent character by character, and the entries are made where text is sent: a token that
# leaves a character unfinished adds none, and its probability is told nowhere. A program that sums log-probabilities, or
# pairs them with tokens, is wrong for every language outside ASCII, without an error.
#
# Seen: of 20 tokens each, three seeds give fewer entries, and another number each time.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6 pillow==13.0.0
cd "$folder"
cat >tiny.py <<'PY'
import json
from urllib.request import Request, urlopen

import gguf
import numpy as np
import xllamacpp


def llama(path, more=(), width=32, hidden=48, heads=2):
    """A llama of random weights whose tokens are the 256 bytes and a few more. Returns how many."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    tokens = [*(chr(byte) if byte in kept else chr(next(rest)) for byte in range(256)), "<end>", *more]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3] + [1 if word[0] == "\u010a" else 3 for word in more])
    writer.add_token_merges(["<end> <end>"])
    writer.add_eos_token_id(256)
    writer.add_bos_token_id(256)
    writer.add_add_bos_token(False)
    random = np.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), width), "output": (len(tokens), width)}
    shapes |= {f"blk.0.attn_{name}": (width, width) for name in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{name}": (hidden, width) for name in ("gate", "up")} | {"blk.0.ffn_down": (width, hidden)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype("f4") / np.float32(shape[-1]) ** 0.5)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, "f4"))
    finish(writer)
    return len(tokens)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def server(path, projector=""):
    asked = xllamacpp.CommonParams()
    asked.model.path, asked.mmproj.path = path, projector
    asked.n_ctx, asked.n_parallel, asked.warmup, asked.fit_params = 256, 1, False, False
    return xllamacpp.Server(asked)


def post(opened, what, **body):
    request = Request(
        f"{opened.listening_address}/{what}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urlopen(request) as answer:
        return json.load(answer)
PY
cat >lists.py <<'PY'
from tiny import llama, post, server

llama("x.gguf")
opened = server("x.gguf")
counts = []
for seed in range(3):
    asked = {"prompt": "the people", "n_predict": 20, "ignore_eos": True, "temperature": 3.0, "seed": seed}
    one = post(opened, "completion", n_probs=1, return_tokens=True, **asked)
    two = post(opened, "v1/completions", logprobs=1, **asked)
    told = len(one["completion_probabilities"]), len(two["choices"][0]["logprobs"]["content"])
    made = len(one["tokens"]), two["usage"]["completion_tokens"]
    print(f"tokens {made}, probabilities {told}")
    assert made == (20, 20)
    assert max(told) < 20
    counts.append(told)
assert len(set(counts)) > 1
PY
"$folder/venv/bin/python" lists.py 2>/dev/null
