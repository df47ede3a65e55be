#!/usr/bin/env python3
"""Writes tests/texts/fixtures/sentence_piece/: a small vocabulary and the ids that the original tokenizers give to texts.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/texts/make_sentence_piece_goldens.py

Rows of goldens.tsv.gz, tab-separated, texts escaped as in make_bpe_goldens.py:
    e  text  transformers ids  open_clip ids          with the end of text
    c  context  text  transformers ids                padded or cut
"""
import io
import random

import sentencepiece
from open_clip.tokenizer import _clean_canonicalize
from transformers import SiglipTokenizer

import make_bpe_goldens as bpe

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
    options = bpe.parse_options("sentence_piece")
    options.out.mkdir(parents=True, exist_ok=True)

    captions, samples = bpe.corpus()
    learned = [caption.lower() for caption in captions] + samples
    (options.out / "spiece.model").write_bytes(train(learned))
    original = SiglipTokenizer(str(options.out / "spiece.model"))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(options.out / "spiece.model"))

    chosen = bpe.draw(bpe.Texts(random.Random(options.seed)), EDGE_CASES + bpe.EDGE_CASES, options.scale)

    rows = []
    for data in chosen:
        text = bpe.decode(data)
        theirs = processor.encode(_clean_canonicalize(text)) + [processor.eos_id()]
        rows.append(b"\t".join([b"e", bpe.escape(data), bpe.join(original(text)["input_ids"]), bpe.join(theirs)]))
    for data in EDGE_CASES + chosen[-300::10]:
        text = bpe.decode(data)
        for context in (64, 16, 3, 1):
            ids = original(text, padding="max_length", truncation=True, max_length=context)["input_ids"]
            rows.append(b"\t".join([b"c", b"%d" % context, bpe.escape(data), bpe.join(ids)]))
    bpe.write_rows(options.out / "goldens.tsv.gz", rows, chosen)


if __name__ == "__main__":
    main()
