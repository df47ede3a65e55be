#!/usr/bin/env python3
"""Writes fixtures/t5/goldens.tsv: ids that open_clip's HFTokenizer, transformers' T5Tokenizer and the tokenizers package make with a
tokenizer.json of T5's form, as SigLIP's repositories have it. The file itself is made of fixtures/xlm_roberta/tokenizer.json, here and in
xlm_roberta's test alike: <pad>, </s> and <unk> before its pieces, Metaspace alone, </s> behind a text.

usage: make_t5_goldens.py fixtures      in the environment of tests/parity/venv.sh
"""

import json
import random
import sys
import tempfile
from pathlib import Path

from open_clip.tokenizer import HFTokenizer
from transformers import T5TokenizerFast

SPACES = ["a  b", " a", "a ", "  two  spaces  ", "", " ", "tab\tand\nline", "a\u00a0b", "ideographic\u3000space", "x\u2581y", "end  ", "\u2581"]


def t5_json(xlm):
    made = dict(xlm)
    pieces = [piece for piece in xlm["model"]["vocab"] if piece[0] not in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")]
    made["model"] = xlm["model"] | {"vocab": [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], *pieces], "unk_id": 2}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    made["added_tokens"] = [{"id": i, "content": text} | special for i, text in enumerate(("<pad>", "</s>", "<unk>"))]
    made["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    made["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
    }
    return made


def main():
    fixtures = Path(sys.argv[1])
    xlm = json.loads((fixtures / "xlm_roberta/tokenizer.json").read_text(encoding="utf-8"))
    draw = random.Random(0)
    words = [piece[0].replace("\u2581", " ") for piece in xlm["model"]["vocab"][5:]]
    texts = SPACES + ["A photo of a Cat, on a beach!", "Ein schöner Tag", "猫の写真", "it's </s> here", "naïve café 12 ½"]
    texts += ["".join(draw.choice(words) for _ in range(draw.randint(1, 12))) for _ in range(200)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tokenizer.json").write_text(json.dumps(t5_json(xlm), ensure_ascii=False), encoding="utf-8")
        config = {"tokenizer_class": "T5Tokenizer", "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>", "extra_ids": 0}
        Path(folder, "tokenizer_config.json").write_text(json.dumps(config))
        ours = HFTokenizer(folder, context_length=16, clean="canonicalize")
        from tokenizers import Tokenizer

        plain = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
        theirs = T5TokenizerFast.from_pretrained(folder)
        rows = []
        for text in texts:
            row = theirs(text, padding="max_length", truncation=True, max_length=16)["input_ids"]
            columns = (ours(text)[0].tolist(), row, plain.encode(text).ids)
            rows.append("\t".join([json.dumps(text), *(" ".join(map(str, ids)) for ids in columns)]))
        differ = sum(theirs(text)["input_ids"] != plain.encode(text).ids for text in texts)
        print(f"T5Tokenizer, which puts steps of its own in the place of the file's, differs from it in {differ} of {len(texts)} texts")
    (fixtures / "t5").mkdir(exist_ok=True)
    (fixtures / "t5/goldens.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
