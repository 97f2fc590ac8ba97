"""Counts what the exported model gets right: every fact of the corpus, every sum, and whether stories keep to the topic."""

import argparse
import random

import numpy as np

import corpus
import tokens
from run import HERE, Model

ARTICLE = corpus.article


def questions():
    """(kind, question, right answer)"""
    for a in range(10):
        for b in range(10):
            yield "sums", f"What is {a} + {b}?", f"{a} plus {b} is {a + b}."
    tables = [
        ("sounds", corpus.SOUNDS, "What does {} say?", "{} says {}."),
        ("homes", corpus.HOMES, "Where does {} live?", "{} lives {}."),
        ("food", corpus.EATS, "What does {} eat?", "{} likes to eat {}."),
        ("legs", corpus.LEGS, "How many legs does {} have?", "{} has {} legs."),
    ]
    for kind, table, question, answer in tables:
        for key, value in table.items():
            yield kind, question.format(ARTICLE(key)), answer.format(corpus.cap(ARTICLE(key)), value)
    for key, value in corpus.COLOUR_OF.items():
        yield "colours", f"What colour is {key}?", f"{corpus.cap(key)} is {value}."
    for key, value in corpus.BABIES.items():
        yield "babies", f"What is a baby {key} called?", f"A baby {key} is called {ARTICLE(value)}."
    for pair in corpus.OPPOSITES:
        for a, b in (pair, pair[::-1]):
            yield "opposites", f"What is the opposite of {a}?", f"The opposite of {a} is {b}."
    for i, day in enumerate(corpus.DAYS):
        yield "days", f"What day comes after {day}?", f"{corpus.DAYS[(i + 1) % 7]} comes after {day}."
    for n in range(3, 11):
        yield "counting", f"Count to {n}.", ", ".join(str(i) for i in range(1, n + 1)) + "."


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=HERE / "work" / "twinfer-demo-f32.gguf")
    parser.add_argument("--bits", type=int)
    parser.add_argument("--stories", type=int, default=12, help="stories of each kind of topic, at temperature 0.8")
    args = parser.parse_args()
    model, tokenizer = Model(args.model, args.bits), tokens.load_tokenizer()
    noise = np.random.default_rng(0)

    def ask(question, temperature=0.0):
        ids = tokenizer.encode(model.render([{"role": "user", "content": question}])).ids
        return tokenizer.decode(model.generate(ids, 256, temperature, noise)[0])

    score = {}
    for kind, question, right in questions():
        answer = ask(question)
        score.setdefault(kind, []).append(answer == right)
        if answer != right:
            print(f"{question} {answer}")

    rng = random.Random(4)
    for _ in range(args.stories):
        a, b = rng.sample(corpus.ANIMALS, 2)
        thing, place = rng.choice(corpus.OBJECTS), rng.choice(list(corpus.PLACES))
        for kind, topic, words in [
            ("story about an animal", ARTICLE(a), [a]),
            ("story about a thing", ARTICLE(thing), [thing]),
            ("story about a place", f"the {place}", [f"the {place}"]),
            ("story about two animals", f"{ARTICLE(a)} and {ARTICLE(b)}", [a, b]),
        ]:
            story = ask(f"Tell me a story about {topic}.", 0.8)
            score.setdefault(kind, []).append(all(f" {word}" in story for word in words))
    for kind, right in score.items():
        print(f"{kind}: {sum(right)} of {len(right)}")


if __name__ == "__main__":
    main()
