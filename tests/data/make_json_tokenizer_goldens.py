#!/usr/bin/env python3
"""Writes tests/data/fixtures/json_tokenizer/: a small tokenizer.json like SigLIP 2's and the ids that tokenizers gives.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/data/make_json_tokenizer_goldens.py

Rows of goldens.tsv.gz, tab-separated, texts escaped as in make_bpe_goldens.py:
    e  text  ids  open_clip ids  with the end of text
    c  context  text  ids        padded or cut
"""
import argparse
import gzip
import json
import pathlib
import random

import ftfy
from open_clip.tokenizer import _clean_canonicalize
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

import make_bpe_goldens as bpe

SEED_TEXTS = 3000
# Gemma has such beside its special tokens; the longest one counts.
ADDED = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "<table>", "<tab"]
EDGE_CASES = [b"<eos>", b"a<eos> b", b"A<table>B<tab", b"\n\n\n\n", "▁▁▁▁▁ x".encode(), b"  two  spaces  ", b"<0x41>", b"<EOS>",
              b"<table", b"<start_of_turn>USER"]  # fmt: skip


def train(texts):
    """Byte-fallback BPE, set up as transformers/models/siglip2/tokenization_siglip2.py has it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous", invert=False)
    trainer = trainers.BpeTrainer(vocab_size=1500, limit_alphabet=150, special_tokens=ADDED[:5], show_progress=False,
                                  max_token_length=12)  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(ADDED[5:])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", tokenizer.token_to_id("<eos>"))]
    )
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    free = 1 + max(*vocabulary.values(), *(token["id"] for token in state["added_tokens"]))
    vocabulary.update({f"<0x{byte:02X}>": free + byte for byte in range(256)})
    for token in state["added_tokens"]:
        token["normalized"] = False
    return Tokenizer.from_str(json.dumps(state))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=pathlib.Path(__file__).parent / "fixtures/json_tokenizer", type=pathlib.Path)
    parser.add_argument("--seed", default=1, type=int)
    parser.add_argument("--scale", default=1.0, type=float, help="multiplies the number of texts of each kind")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    # The vocabulary does not depend on the options: other seeds try other texts on it.
    corpus = bpe.Texts(random.Random(0))
    tokenizer = train([corpus.caption() for _ in range(SEED_TEXTS)] + [corpus.sample() for _ in range(SEED_TEXTS)])
    tokenizer.save(str(options.out / "tokenizer.json"), pretty=False)

    texts = bpe.Texts(random.Random(options.seed))
    chosen = list(dict.fromkeys(EDGE_CASES + bpe.EDGE_CASES + [s.encode() for s in bpe.SAMPLES]))
    for kind, count in bpe.PLAN.items():
        for _ in range(round(count * options.scale)):
            while True:
                text = getattr(texts, kind)()
                data = text if isinstance(text, bytes) else text.encode()
                decoded = data.decode("utf-8", errors="replace")
                # Texts that ftfy takes for mis-decoded ones are outside what tandem does.
                if ftfy.fix_text(decoded) == ftfy.fix_text(decoded, fix_encoding=False):
                    break
            chosen.append(data)

    join = lambda ids: b" ".join(b"%d" % i for i in ids)
    decode = lambda data: data.decode("utf-8", errors="replace")
    rows = []
    for data in chosen:
        theirs = tokenizer.encode(_clean_canonicalize(decode(data))).ids
        rows.append(b"\t".join([b"e", bpe.escape(data), join(tokenizer.encode(decode(data)).ids), join(theirs)]))
    for context in (64, 16, 3, 1):
        tokenizer.enable_truncation(context)
        tokenizer.enable_padding(length=context, pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>")
        for data in EDGE_CASES + chosen[-300::10]:
            ids = tokenizer.encode(decode(data)).ids
            rows.append(b"\t".join([b"c", b"%d" % context, bpe.escape(data), join(ids)]))
    packed = gzip.compress(b"\n".join(rows) + b"\n", 9, mtime=0)
    (options.out / "goldens.tsv.gz").write_bytes(packed)
    print(f"{len(chosen)} texts ({len(set(chosen))} different), {len(rows)} rows, {len(packed)} bytes")


if __name__ == "__main__":
    main()
