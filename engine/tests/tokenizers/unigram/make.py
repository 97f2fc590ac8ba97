"""A small Unigram vocabulary with the ids that SentencePiece gives: python make.py OUT"""
import glob, io, json, random, sys
import sentencepiece as spm
import numpy as np
from sentencepiece import sentencepiece_model_pb2 as pb
import gguf

rule = sys.argv[2] if len(sys.argv) > 2 else None
random.seed(1)
docs = []
for f in sorted(glob.glob('/work/h/tokens/docs/*.md') + ['/work/h/tokens/README.md', '/work/h/tokens/CONTRIBUTING.md']):
    docs += [l.strip() for l in open(f, encoding='utf-8') if len(l.strip()) > 20]
docs += ['Die schnelle Füchsin springt über den faulen Hund, größer als müde Äpfel im Übermaß.'] * 3
docs += ['Le café naïve de l’été coûte 3,50 €; où êtes-vous allés, garçon ?'] * 3
docs += ['日本語のテキストを読む。東京は大きい都市です。', '中文的分词没有空格，所以模型要猜。', '한국어 문장도 하나 있습니다.', 'Привет, мир! Сколько стоит билет в кино?'] * 3

# rules of our own: full-width forms, ligatures, compositions, white space, deletions
rules = {}
for c in range(0xff01, 0xff5f): rules[chr(c)] = chr(c - 0xfee0)
rules.update({'ﬁ': 'fi', 'ﬂ': 'fl', 'ﬃ': 'ffi', '…': '...', '½': '1/2', '™': 'TM', '№': 'No', '㎞': 'km', '\u3000': ' ', '\u00a0': ' ', '\t': ' ', '\n': ' ', '\r': ' ', '\u200b': '', '\ufeff': '', '\u00ad': ''})
for base, comp in [('e\u0301', 'é'), ('e\u0300', 'è'), ('a\u0308', 'ä'), ('o\u0308', 'ö'), ('u\u0308', 'ü'), ('n\u0303', 'ñ'), ('か\u3099', 'が'), ('は\u309a', 'ぱ'), ('\u1112\u1161\u11ab', '한'), ('\u1112\u1161', '하')]: rules[base] = comp
with open('rules.tsv', 'w') as f:
    for a, b in sorted(rules.items()):
        f.write(' '.join(f'{ord(c):X}' for c in a) + '\t' + ' '.join(f'{ord(c):X}' for c in b) + '\n')
open('corpus.txt', 'w').write('\n'.join(docs))
kw = dict(normalization_rule_name=rule) if rule else dict(normalization_rule_tsv='rules.tsv')
spm.SentencePieceTrainer.train(input='corpus.txt', model_prefix='tiny', vocab_size=700, model_type='unigram', character_coverage=0.995,
    unk_id=2, bos_id=-1, eos_id=1, pad_id=0, num_threads=1, minloglevel=2, **kw)
sp = spm.SentencePieceProcessor(model_file='tiny.model')
m = pb.ModelProto(); m.ParseFromString(open('tiny.model', 'rb').read())
w = gguf.GGUFWriter(sys.argv[1] + '.gguf', 'none')
w.add_tokenizer_model('t5'); w.add_tokenizer_pre('default')
w.add_token_list([p.piece for p in m.pieces])
w.add_token_scores([p.score for p in m.pieces])
w.add_token_types([{1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6}[p.type] for p in m.pieces])
w.add_add_space_prefix(m.normalizer_spec.add_dummy_prefix)
w.add_remove_extra_whitespaces(m.normalizer_spec.remove_extra_whitespaces)
w.add_precompiled_charsmap(m.normalizer_spec.precompiled_charsmap)
w.add_eos_token_id(1); w.add_unk_token_id(2); w.add_pad_token_id(0)
w.write_header_to_file(); w.write_kv_data_to_file(); w.close()

parts = ['The ', 'engine', 'model', ' reads', 'tokens', '  ', '\t', '\n', ' ', '\u00a0', '\u3000', 'Ｆｕｌｌ', 'ﬁne', 'oﬃce', 'caf' + 'e\u0301', 'u\u0308ber', 'größer', '…', '½', '日本語', 'テキスト', 'か\u3099', '中文', '한국어', '\u1112\u1161\u11ab', '\u1112\u1161', 'Привет', '🦙', '👨\u200d👩', '\u200b', '\ufeff', 'x\u00adyz', '1234', '3.50€', ',', '!', '?', '(', ')', 'ÀÉÎ', '\u0301', 'ß', '<s>', '</s>', '<unk>', 'zzzzzz', '\u0001', '\u0300e', 'qwxj', '_', '-']
texts = ['', ' ', 'a', 'Hello, world!', '  leading and  inner   spaces ', 'tabs\tand\nlines\r\n', docs[0], docs[5], docs[-1], docs[-2], docs[-3]]
for _ in range(300): texts.append(''.join(random.choice(parts) for _ in range(random.randint(1, 12))))
texts += [d[:90] for d in docs[20:420:4]]
cases = [{'text': t, 'ids': sp.encode(t)} for t in texts]
json.dump({'cases': cases}, open(sys.argv[1] + '.cases.json', 'w'), ensure_ascii=True, separators=(',', ':'))
print(len(m.pieces), len(m.normalizer_spec.precompiled_charsmap), sum(2 in c['ids'] for c in cases), len(cases))
