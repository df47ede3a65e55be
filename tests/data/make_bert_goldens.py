#!/usr/bin/env python3
"""Writes tests/data/fixtures/xlm_roberta/ and word_piece/: small vocabularies and the ids that transformers gives to texts.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/data/make_bert_goldens.py

Both as the model's own file and as tokenizer.json. Rows of goldens.tsv.gz, tab-separated, texts escaped as in make_bpe_goldens.py:
    e  text  transformers ids  open_clip ids          with begin and end of text
    c  context  text  transformers ids                padded or cut
"""
import argparse
import gzip
import io
import pathlib
import random

import ftfy
import sentencepiece
from open_clip.tokenizer import _clean_whitespace
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, XLMRobertaTokenizer

import make_bpe_goldens as bpe

SEED_TEXTS = 3000
EDGE_CASES = [b"</s>", b"a<s>b</s> c", b"<mask>", b" <pad> x <unk>", "▁".encode(), "a▁b ▁▁c".encode(), "e\u0301 \u1112\u1161\u11ab".encode(),
              b"[CLS] a [SEP]", b"x[MASK]y", b"[UNK]", b"[cls]", b"Caf\xc3\xa9 na\xc3\xafve \xc3\x85ngstr\xc3\xb6m", "\u4f60\u597d world".encode(),
              ("z" * 101).encode(), ("ab" * 50).encode(), b"don't stop-me_now", "\u0130stanbul \u03a3\u03b1\u03c2".encode(), "\uff21\uff22 \ufb01 \u2460".encode()]  # fmt: skip


def train_xlm_roberta(folder, texts):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=1200, model_type="unigram", character_coverage=0.98,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, normalization_rule_name="nmt_nfkc", num_threads=1, minloglevel=2,
    )  # fmt: skip
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    return XLMRobertaTokenizer.from_pretrained(folder)


def train_word_piece(folder, texts):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=1500, limit_alphabet=300, special_tokens=special, show_progress=False))
    vocabulary = tokenizer.get_vocab()
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in sorted(vocabulary, key=vocabulary.get)), encoding="utf-8")
    return BertTokenizer.from_pretrained(folder)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=pathlib.Path(__file__).parent / "fixtures", type=pathlib.Path)
    parser.add_argument("--seed", default=1, type=int)
    parser.add_argument("--scale", default=1.0, type=float, help="multiplies the number of texts of each kind")
    options = parser.parse_args()

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
    decode = lambda data: data.decode("utf-8", errors="replace")
    join = lambda ids: b" ".join(b"%d" % i for i in ids)
    for name, train in (("xlm_roberta", train_xlm_roberta), ("word_piece", train_word_piece)):
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        # The vocabulary does not depend on the options: other seeds try other texts on it.
        corpus = bpe.Texts(random.Random(0))
        original = train(folder, [corpus.caption() for _ in range(SEED_TEXTS)] + [corpus.sample() for _ in range(SEED_TEXTS)])
        original.backend_tokenizer.no_padding()
        original.backend_tokenizer.no_truncation()
        (folder / "tokenizer.json").unlink(missing_ok=True)
        original.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        rows = []
        for data in chosen:
            ids, theirs = (original(text)["input_ids"] for text in (decode(data), _clean_whitespace(decode(data))))
            rows.append(b"\t".join([b"e", bpe.escape(data), join(ids), join(theirs)]))
        for data in EDGE_CASES + chosen[-300::10]:
            for context in (64, 16, 3, 2):
                ids = original(decode(data), padding="max_length", truncation=True, max_length=context)["input_ids"]
                rows.append(b"\t".join([b"c", b"%d" % context, bpe.escape(data), join(ids)]))
        packed = gzip.compress(b"\n".join(rows) + b"\n", 9, mtime=0)
        (folder / "goldens.tsv.gz").write_bytes(packed)
        print(f"{name}: {len(chosen)} texts ({len(set(chosen))} different), {len(rows)} rows, {len(packed)} bytes")


if __name__ == "__main__":
    main()
