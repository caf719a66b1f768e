#!/usr/bin/env bash
# tokenizers 0.23.3: `encode_special_tokens` is kept nowhere: not in tokenizer.json, not by pickle, not by copy.deepcopy.
#
# With `tokenizer.encode_special_tokens = True` the text "<eot>" in a document is read as text. The setting looks
# like part of the tokenizer, but `save`, `to_str`, pickle (so also every process pool) and deepcopy drop it without
# a word. A model that was trained on such ids is then given the special token wherever a user writes its name.
# What keeps the meaning is another pre-tokenizer or normalizer, or setting it again after every load.
#
# Seen: in memory [0, 2, 2, 2, 1]; after any of the three [0, 3, 1].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import copy
import pickle

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers

assert tokenizers.__version__ == "0.23.3"
first = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
first.pre_tokenizer = pre_tokenizers.Whitespace()
first.add_special_tokens(["<eot>"])
first.encode_special_tokens = True
first.save("tokenizer.json")
read = {
    "in memory": first,
    "from tokenizer.json": Tokenizer.from_file("tokenizer.json"),
    "by pickle": pickle.loads(pickle.dumps(first)),
    "by deepcopy": copy.deepcopy(first),
}
for how, tokenizer in read.items():
    ids = tokenizer.encode("a <eot> b").ids
    print(f"{how}: encode_special_tokens {tokenizer.encode_special_tokens}, ids {ids}")
    kept = how == "in memory"
    assert tokenizer.encode_special_tokens is kept
    assert ids == ([0, 2, 2, 2, 1] if kept else [0, 3, 1])
PY
