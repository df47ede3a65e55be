#!/usr/bin/env python3
"""Writes tests/texts/fixtures/json_tokenizer/: a small tokenizer.json like SigLIP 2's and the ids that tokenizers gives.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/texts/make_json_tokenizer_goldens.py

Rows of goldens.tsv.gz, tab-separated, texts escaped as in make_bpe_goldens.py:
    e  text  ids  open_clip ids  with the end of text
    c  context  text  ids        padded or cut
"""
import json
import random

from open_clip.tokenizer import _clean_canonicalize
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

import make_bpe_goldens as bpe

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
    options = bpe.parse_options("json_tokenizer")
    options.out.mkdir(parents=True, exist_ok=True)

    path = options.out / "tokenizer.json"
    if path.exists():  # tokenizers' trainer breaks ties by chance
        tokenizer = Tokenizer.from_file(str(path))
    else:
        captions, samples = bpe.corpus()
        tokenizer = train(captions + samples)
        tokenizer.save(str(path), pretty=False)

    chosen = bpe.draw(bpe.Texts(random.Random(options.seed)), EDGE_CASES + bpe.EDGE_CASES, options.scale)

    rows = []
    for data in chosen:
        theirs = tokenizer.encode(_clean_canonicalize(bpe.decode(data))).ids
        rows.append(b"\t".join([b"e", bpe.escape(data), bpe.join(tokenizer.encode(bpe.decode(data)).ids), bpe.join(theirs)]))
    for context in (64, 16, 3, 1):
        tokenizer.enable_truncation(context)
        tokenizer.enable_padding(length=context, pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>")
        for data in EDGE_CASES + chosen[-300::10]:
            ids = tokenizer.encode(bpe.decode(data)).ids
            rows.append(b"\t".join([b"c", b"%d" % context, bpe.escape(data), bpe.join(ids)]))
    bpe.write_rows(options.out / "goldens.tsv.gz", rows, chosen)


if __name__ == "__main__":
    main()
