"""Makes vocabulary.gguf.gz and cases.json beside this file: a small Unigram vocabulary, and the ids that SentencePiece
gives to texts with it. It is trained on this project's documents as they are now, so another day gives other files.

Needs the packages sentencepiece, protobuf and gguf. `make.py nmt_nfkc` takes SentencePiece's own normalising rules instead of
the ones below; what that makes is large and is not kept.
"""

import gzip, json, pathlib, random, sys, tempfile

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[3]
random.seed(1)

files = sorted(ROOT.glob("docs/*.md")) + [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
lines = [line.strip() for file in files for line in file.read_text("utf-8").splitlines()]
lines = [line for line in lines if len(line) > 20]
lines += ["Die schnelle Füchsin springt über den faulen Hund, größer als müde Äpfel im Übermaß."] * 3
lines += ["Le café naïve de l’été coûte 3,50 €; où êtes-vous allés, garçon ?"] * 3
lines += [
    "日本語のテキストを読む。東京は大きい都市です。",
    "中文的分词没有空格，所以模型要猜。",
    "한국어 문장도 하나 있습니다.",
    "Привет, мир! Сколько стоит билет в кино?",
] * 3

# full-width forms, ligatures, white space, what is deleted, compositions
rules = {chr(c): chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F)}
rules |= {"ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "…": "...", "½": "1/2", "™": "TM", "№": "No", "㎞": "km"}
rules |= {c: " " for c in "\u3000\u00a0\t\n\r"} | {c: "" for c in "\u200b\ufeff\u00ad"}
rules |= {"e\u0301": "é", "e\u0300": "è", "a\u0308": "ä", "o\u0308": "ö", "u\u0308": "ü", "n\u0303": "ñ"}
rules |= {"か\u3099": "が", "は\u309a": "ぱ", "\u1112\u1161\u11ab": "한", "\u1112\u1161": "하"}

with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    codes = lambda text: " ".join(f"{ord(c):X}" for c in text)
    tsv = "".join(f"{codes(a)}\t{codes(b)}\n" for a, b in sorted(rules.items()))
    (folder / "rules.tsv").write_text(tsv)
    (folder / "corpus.txt").write_text("\n".join(lines), "utf-8")
    how = {"normalization_rule_name": sys.argv[1]} if sys.argv[1:] else {
        "normalization_rule_tsv": str(folder / "rules.tsv")
    }
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"), model_prefix=str(folder / "tiny"), model_type="unigram", vocab_size=700,
        character_coverage=0.995, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2, **how,
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tiny.model"))
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((folder / "tiny.model").read_bytes())

    out = gguf.GGUFWriter(str(folder / "vocabulary.gguf"), "none")
    out.add_tokenizer_model("t5")
    out.add_tokenizer_pre("default")
    out.add_token_list([piece.piece for piece in model.pieces])
    out.add_token_scores([piece.score for piece in model.pieces])
    out.add_token_types([int(piece.type) for piece in model.pieces])
    out.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
    out.add_remove_extra_whitespaces(model.normalizer_spec.remove_extra_whitespaces)
    out.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)
    out.add_pad_token_id(0)
    out.add_eos_token_id(1)
    out.add_unk_token_id(2)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()
    packed = gzip.compress((folder / "vocabulary.gguf").read_bytes(), 9, mtime=0)
    (HERE / "vocabulary.gguf.gz").write_bytes(packed)

parts = ["The ", "engine", "model", " reads", "tokens", "  ", "\t", "\n", " ", "\u00a0", "\u3000", "Ｆｕｌｌ", "ﬁne", "oﬃce"]
parts += ["cafe\u0301", "u\u0308ber", "größer", "…", "½", "日本語", "テキスト", "か\u3099", "中文", "한국어", "Привет", "🦙"]
parts += ["\u1112\u1161\u11ab", "\u1112\u1161", "👨\u200d👩", "\u200b", "\ufeff", "x\u00adyz", "1234", "3.50€", ",", "!"]
parts += ["?", "(", ")", "ÀÉÎ", "\u0301", "ß", "<s>", "</s>", "<unk>", "zzzzzz", "\u0001", "\u0300e", "qwxj", "_", "-"]
texts = ["", " ", "a", "Hello, world!", "  leading and  inner   spaces ", "tabs\tand\nlines\r\n", *lines[-3:]]
texts += ["".join(random.choices(parts, k=random.randint(1, 12))) for _ in range(300)]
texts += [line[:90] for line in lines[20:420:4]]
cases = [{"text": text, "ids": processor.encode(text)} for text in texts]
(HERE / "cases.json").write_text(json.dumps({"cases": cases}, separators=(",", ":")))
