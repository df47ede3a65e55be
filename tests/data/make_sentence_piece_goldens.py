#!/usr/bin/env python3
"""Writes tests/data/fixtures/sentence_piece/: a small vocabulary and the ids that the original tokenizers give to texts.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/data/make_sentence_piece_goldens.py

Rows of goldens.tsv.gz, tab-separated, texts escaped as in make_bpe_goldens.py:
    e  text  transformers ids  open_clip ids          with the end of text
    c  context  text  transformers ids                padded or cut
"""
import argparse
import gzip
import io
import pathlib
import random

import ftfy
import sentencepiece
from open_clip.tokenizer import _clean_canonicalize
from transformers import SiglipTokenizer

import make_bpe_goldens as bpe

SEED_TEXTS = 3000
EDGE_CASES = [b"</s>", b"a</s>", b" a  </s>  b ", b"<unk>", b"x <unk> y</s></s>", "▁".encode(), "a▁b".encode(), "▁▁ a".encode(),
              b"<UNK>", b"</S>", b"_a_b_", b"{} {}", b"'tis", b"<unk", b"  \t lead and trail \n"]  # fmt: skip


def train(texts):
    """A unigram vocabulary like T5's: <pad>, </s>, <unk>, then pieces; SigLIP's own is not free to copy."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=1200, model_type="unigram", character_coverage=0.98,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name="nmt_nfkc", num_threads=1, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=pathlib.Path(__file__).parent / "fixtures/sentence_piece", type=pathlib.Path)
    parser.add_argument("--seed", default=1, type=int)
    parser.add_argument("--scale", default=1.0, type=float, help="multiplies the number of texts of each kind")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    # The vocabulary does not depend on the options: other seeds try other texts on it.
    corpus = bpe.Texts(random.Random(0))
    learned = [corpus.caption().lower() for _ in range(SEED_TEXTS)] + [corpus.sample() for _ in range(SEED_TEXTS)]
    (options.out / "spiece.model").write_bytes(train(learned))
    original = SiglipTokenizer(str(options.out / "spiece.model"))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(options.out / "spiece.model"))

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
    rows = []
    for data in chosen:
        text = data.decode("utf-8", errors="replace")
        theirs = processor.encode(_clean_canonicalize(text)) + [processor.eos_id()]
        rows.append(b"\t".join([b"e", bpe.escape(data), join(original(text)["input_ids"]), join(theirs)]))
    for data in EDGE_CASES + chosen[-300::10]:
        text = data.decode("utf-8", errors="replace")
        for context in (64, 16, 3, 1):
            ids = original(text, padding="max_length", truncation=True, max_length=context)["input_ids"]
            rows.append(b"\t".join([b"c", b"%d" % context, bpe.escape(data), join(ids)]))
    packed = gzip.compress(b"\n".join(rows) + b"\n", 9, mtime=0)
    (options.out / "goldens.tsv.gz").write_bytes(packed)
    print(f"{len(chosen)} texts ({len(set(chosen))} different), {len(rows)} rows, {len(packed)} bytes")


if __name__ == "__main__":
    main()
