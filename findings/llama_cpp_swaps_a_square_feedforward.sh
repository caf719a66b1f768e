#!/usr/bin/env bash
# llama.cpp b11549 (xllamacpp 2026.10.11549): in a vision tower whose feed-forward network is as wide inside as outside,
# the two matrices of that network are taken for each other.
#
# Some converters once wrote ffn_up and ffn_down in the wrong order. For the projectors that these made (idefics3, as of
# SmolVLM, is one) the reader of mmproj files looks at the shape: where ffn_up has as many rows as the tower is wide, it
# swaps the two. A network of width to width has that shape in the right order, so a correct file is read wrongly; a
# warning in the log is all that shows. The model answers, with other probabilities.
#
# Seen: two files of one function, the second with a hidden unit more whose weights are zeros, differ by more than 1 in a
# log-probability behind the same image.
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
cat >square.py <<'PY'
import base64
import io
import os

import gguf
import numpy as np
from PIL import Image

os.environ["LLAMA_MEDIA_MARKER"] = "<image>"

from tiny import finish, llama, post, server

WIDTH, SIZE, PATCH = 32, 16, 4


def projector(path, hidden):
    random = np.random.default_rng(1)

    def matrix(*shape):
        return random.normal(size=shape).astype("f4") / np.float32(np.prod(shape[1:])) ** 0.5

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("idefics3")
    writer.add_vision_use_gelu(True)
    writer.add_vision_image_size(SIZE)
    writer.add_vision_patch_size(PATCH)
    writer.add_vision_embedding_length(WIDTH)
    writer.add_vision_feed_forward_length(hidden)
    writer.add_vision_block_count(1)
    writer.add_vision_head_count(2)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_projection_dim(WIDTH)
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    writer.add_vision_projector_scale_factor(2)
    tensors = {
        "v.patch_embd": matrix(WIDTH, 3, PATCH, PATCH),
        "v.position_embd": matrix((SIZE // PATCH) ** 2, WIDTH),
        "mm.model.fc": matrix(WIDTH, 4 * WIDTH),
    }
    tensors |= {f"v.blk.0.attn_{name}": matrix(WIDTH, WIDTH) for name in ("q", "k", "v", "out")}
    more = hidden - WIDTH
    tensors["v.blk.0.ffn_up"] = np.pad(matrix(WIDTH, WIDTH), ((0, more), (0, 0)))
    tensors["v.blk.0.ffn_down"] = np.pad(matrix(WIDTH, WIDTH), ((0, 0), (0, more)))
    for name in ("v.blk.0.ln1", "v.blk.0.ln2", "v.post_ln"):
        tensors[name] = np.ones(WIDTH, "f4")
        writer.add_tensor(f"{name}.bias", np.zeros(WIDTH, "f4"))
    for name, values in tensors.items():
        writer.add_tensor(f"{name}.weight", np.ascontiguousarray(values))
    finish(writer)


count = llama("x.gguf", more=["<fake_token_around_image>", "<row_1_col_1>", "<global-img>", "\u010a\u010a"], width=WIDTH)
image = io.BytesIO()
pixels = np.random.default_rng(2).integers(0, 256, (SIZE, SIZE, 3), dtype="u1")
Image.fromarray(pixels).save(image, "PNG")
prompt = {"prompt_string": "a<image>b", "multimodal_data": [base64.b64encode(image.getvalue()).decode()]}
rows = []
for hidden in (WIDTH, WIDTH + 1):
    projector(f"{hidden}.gguf", hidden)
    opened = server("x.gguf", f"{hidden}.gguf")
    unfinished = [[token, False] for token in range(128, 256)]  # the server tells no probabilities of half characters
    answer = post(
        opened, "completion", prompt=prompt, n_predict=1, n_probs=count, temperature=0.0, logit_bias=unfinished
    )
    told = {each["id"]: each["logprob"] for each in answer["completion_probabilities"][0]["top_logprobs"]}
    rows.append([max(told[token], -50) for token in range(128)])
    del opened
difference = float(np.abs(np.diff(rows, axis=0)).max())
print(f"largest difference of a log-probability: {difference:.2f}")
assert difference > 1
PY
"$folder/venv/bin/python" square.py 2>/dev/null
