"""Tokenizer and chat format of the demonstration model.

Byte-level BPE with the GPT-2 splitting pattern (`tokenizer.ggml.pre` = "gpt-2")
and all 256 byte symbols, so any text has a tokenization.
"""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import corpus

SPECIAL = ["<|bos|>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
BOS, EOS, SYSTEM, USER, ASSISTANT, END = range(6)
ROLE = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT, "unfinished": ASSISTANT}
VOCAB_SIZE = 2048
PATH = Path(__file__).parent / "tokenizer.json"

# One turn is the role's token, the text, and <|end|>, with nothing between.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(seed=1, count=30000):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )

    def texts():
        for _, document in zip(range(count), corpus.documents(seed)):
            if isinstance(document, str):
                yield document
            else:
                yield from (text for _, text in document)

    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.save(str(PATH))
    return tokenizer


def load_tokenizer():
    return Tokenizer.from_file(str(PATH)) if PATH.exists() else train_tokenizer()


def encode(tokenizer, document):
    """Ids of a document and for each whether it is to be learned: what a user says is not."""
    if isinstance(document, str):
        ids = [BOS, *tokenizer.encode(document).ids, EOS]
        return ids, [0] + [1] * (len(ids) - 1)
    ids, learn = [BOS], [0]
    for role, text in document:
        body = tokenizer.encode(text).ids + ([] if role == "unfinished" else [END])
        ids += [ROLE[role], *body]
        learn += [0] + [int(role in ("assistant", "unfinished"))] * len(body)
    return ids, learn
