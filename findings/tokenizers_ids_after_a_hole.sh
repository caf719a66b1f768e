#!/usr/bin/env bash
# tokenizers 0.23.3: an added token whose id in tokenizer.json lies behind a hole gets another id, without a word.
#
# A tokenizer.json may give every added token its id. Where ids between the vocabulary and an added token are free
# (rows kept for padding, or tokens that somebody removed from the file), the loader takes the next free ids instead
# of those in the file. The rows of the model's embedding that were trained under the ids of the file are then never
# used, and saving the tokenizer writes the new ids over the old ones.
#
# Seen: a file with ids 3, 10 and 11 is read as 3, 4 and 5, and saved so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import json

import tokenizers
from tokenizers import Tokenizer, models

assert tokenizers.__version__ == "0.23.3"
plain = json.loads(Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="c")).to_str())
flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
asked = {"<x>": 3, "<y>": 10, "<z>": 11}
plain["added_tokens"] = [{"id": id, "content": name, **flags} for name, id in asked.items()]
read = Tokenizer.from_str(json.dumps(plain))
found = {name: read.token_to_id(name) for name in asked}
saved = {token["content"]: token["id"] for token in json.loads(read.to_str())["added_tokens"]}
print(f"in the file {asked}, read as {found}, saved as {saved}")
assert found == saved == {"<x>": 3, "<y>": 4, "<z>": 5}
PY
