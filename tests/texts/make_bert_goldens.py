#!/usr/bin/env python3
"""Writes tests/texts/fixtures/xlm_roberta/ and word_piece/: small vocabularies and the ids that transformers gives to texts.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/texts/make_bert_goldens.py

Both as the model's own file and as tokenizer.json. Rows of goldens.tsv.gz, tab-separated, texts escaped as in make_bpe_goldens.py:
    e  text  transformers ids  open_clip ids          with begin and end of text
    c  context  text  transformers ids                padded or cut
"""
import io
import random

import sentencepiece
from open_clip.tokenizer import _clean_whitespace
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, XLMRobertaTokenizer

import make_bpe_goldens as bpe

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
    if (folder / "vocab.txt").exists():  # tokenizers' trainer breaks ties by chance
        return BertTokenizer.from_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=1500, limit_alphabet=300, special_tokens=special, show_progress=False))
    vocabulary = tokenizer.get_vocab()
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in sorted(vocabulary, key=vocabulary.get)), encoding="utf-8")
    return BertTokenizer.from_pretrained(folder)


def main():
    options = bpe.parse_options("")

    chosen = bpe.draw(bpe.Texts(random.Random(options.seed)), EDGE_CASES + bpe.EDGE_CASES, options.scale)
    captions, samples = bpe.corpus()
    for name, train in (("xlm_roberta", train_xlm_roberta), ("word_piece", train_word_piece)):
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").unlink(missing_ok=True)  # from_pretrained would prefer it
        original = train(folder, captions + samples)
        original.backend_tokenizer.no_padding()
        original.backend_tokenizer.no_truncation()
        original.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        rows = []
        for data in chosen:
            ids, theirs = (original(text)["input_ids"] for text in (bpe.decode(data), _clean_whitespace(bpe.decode(data))))
            rows.append(b"\t".join([b"e", bpe.escape(data), bpe.join(ids), bpe.join(theirs)]))
        for data in EDGE_CASES + chosen[-300::10]:
            for context in (64, 16, 3, 2):
                ids = original(bpe.decode(data), padding="max_length", truncation=True, max_length=context)["input_ids"]
                rows.append(b"\t".join([b"c", b"%d" % context, bpe.escape(data), bpe.join(ids)]))
        bpe.write_rows(folder / "goldens.tsv.gz", rows, chosen)


if __name__ == "__main__":
    main()
