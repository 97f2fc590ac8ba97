"""The training text of the demonstration model, made by a seeded grammar.

Three kinds of document come out of `documents(seed)`:

* a raw story, for completion;
* a chat in which the user asks for a story and then asks about it;
* a chat of simple questions, greetings and requests beyond the model.

A story is drawn from one of a few plots. A plot fixes who, where, what and how
it ends before a word is written, and every sentence is phrased from these
choices, so names, pronouns, things and the ending always agree. The choices
are kept as `facts`, from which the questions about a story are made.

Run it to look at samples: `python corpus.py [count] [seed]`.
"""

import random
import sys

# --- the world ---------------------------------------------------------------

GIRLS = "Lily Mia Anna Rosa Nora Ella Lucy Zoe Ruby Daisy Molly Clara Emma Alice Ivy Hazel Maya Eva Ada Rose".split()
BOYS = "Tom Ben Max Sam Leo Tim Jack Finn Oscar Toby Hugo Felix Noah Theo Luke Adam Paul Peter Henry Charlie".split()
ANIMALS = ("cat dog rabbit fox bear mouse duck frog hen owl squirrel hedgehog pig sheep cow horse goat turtle "
           "lion elephant monkey bird wolf deer tiger giraffe donkey beaver badger zebra parrot penguin snail panda "
           "kitten puppy").split()
CHILDREN = {"girl": GIRLS, "boy": BOYS}
HELPER_ADJECTIVES = "kind wise old clever gentle friendly helpful brave".split()
HERO_ADJECTIVES = "little little small young cheerful curious playful shy quiet".split()
COLOURS = "red blue green yellow white brown pink purple orange".split()
OBJECTS = ("ball kite hat book drum bell cup lamp scarf basket bucket umbrella doll balloon blanket spoon ring "
           "box whistle boat crown flute shoe clock coin pillow lantern feather mirror").split()
IN_TREES = ["kite", "balloon", "hat", "ball", "scarf"]
BREAKABLE = ["mirror", "clock", "flute", "lantern", "crown", "kite", "drum", "cup", "lamp", "doll", "basket", "umbrella", "boat", "box"]
# Each place with its preposition and where a lost thing may lie there.
PLACES = {
    "forest": ("in", ["under a bush", "behind a tall tree", "under some leaves", "beside a mossy log"]),
    "garden": ("in", ["under a bush", "behind the roses", "beside the gate", "under the bench"]),
    "park": ("in", ["under the bench", "behind the swings", "beside the pond", "under a bush"]),
    "meadow": ("in", ["in the tall grass", "behind a big rock", "among the flowers"]),
    "village": ("in", ["behind the bakery", "beside the well", "under a cart"]),
    "beach": ("on", ["behind a big rock", "under the sand", "beside a shell"]),
    "hill": ("on", ["in the tall grass", "behind a big rock", "under a bush"]),
    "farm": ("on", ["behind the barn", "in the hay", "beside the gate", "under a cart"]),
    "lake": ("by", ["in the tall grass", "behind a big rock", "beside an old log"]),
    "mountain": ("on", ["behind a big rock", "beside a stream", "under a pine tree"]),
    "island": ("on", ["under a palm tree", "behind a big rock", "beside a shell"]),
    "valley": ("in", ["in the tall grass", "beside a stream", "under a bush"]),
    "jungle": ("in", ["under a palm tree", "under some leaves", "behind a tall tree"]),
    "town": ("in", ["behind the bakery", "under the bench", "beside the gate"]),
    "castle": ("in", ["behind a door", "under the stairs", "beside the throne"]),
    "pond": ("by", ["in the tall grass", "under some leaves", "beside a mossy log"]),
    "sea": ("by", ["behind a big rock", "under the sand", "beside a shell"]),
    "river": ("by", ["under the bridge", "in the tall grass", "behind a big rock"]),
}
SCENERY = {
    "forest": ["The trees there were tall and green.", "It was cool and quiet under the trees."],
    "garden": ["Many roses grew there.", "The garden was full of flowers and bees."],
    "park": ["There were swings and a little pond.", "Many children came to the park to play."],
    "meadow": ["The meadow was full of flowers.", "The grass was soft and green."],
    "village": ["The village had a bakery and an old well.", "Everyone in the village knew everyone."],
    "beach": ["The sand was warm and the waves were blue.", "There were many shells on the beach."],
    "hill": ["From the top, one could see far away.", "The wind always blew on the hill."],
    "farm": ["There was a big red barn.", "The farm was full of hay and noise."],
    "lake": ["The water was clear and blue.", "Little fish swam in the lake."],
    "mountain": ["The top was white with snow.", "The air was fresh and cold."],
    "island": ["There was blue water all around.", "Tall palm trees grew there."],
    "valley": ["A clear stream ran through the valley.", "There were green hills on both sides."],
    "jungle": ["It was warm and green and full of sounds.", "Big leaves grew everywhere."],
    "town": ["The houses had red roofs.", "The streets were always full of people."],
    "castle": ["The castle had tall towers.", "The walls were old and thick."],
    "pond": ["Small frogs sat on the leaves.", "The water was as smooth as a mirror."],
    "sea": ["The waves came and went all day.", "One could smell the salt in the air."],
    "river": ["The water ran fast over the stones.", "An old bridge went over the river."],
}
TRAITS = {
    "cat": ["{He} had soft fur and green eyes."], "dog": ["{He} liked to wag {his} tail."], "rabbit": ["{He} had long ears and could hop very fast."],
    "fox": ["{He} had a bushy tail."], "bear": ["{He} was big and loved honey."], "mouse": ["{He} was no bigger than an apple."],
    "duck": ["{He} liked to swim and quack."], "frog": ["{He} could jump very far."], "hen": ["{He} had soft feathers."],
    "owl": ["{He} had big round eyes."], "squirrel": ["{He} loved to eat nuts."], "hedgehog": ["{He} had a coat of prickles."],
    "pig": ["{He} loved to roll in the mud."], "sheep": ["{He} had thick white wool."], "cow": ["{He} ate fresh grass every day."],
    "horse": ["{He} could run like the wind."], "goat": ["{He} had two small horns."], "turtle": ["{He} walked very slowly."],
    "lion": ["{He} had a very loud roar."], "elephant": ["{He} had a long trunk."], "monkey": ["{He} had a long tail."],
    "bird": ["{He} sang a song every morning."],
    "wolf": ["{He} had thick grey fur."], "deer": ["{He} had long thin legs."], "tiger": ["{He} had black stripes."],
    "giraffe": ["{He} had a very long neck."], "donkey": ["{He} had long soft ears."], "beaver": ["{He} had a flat tail and strong teeth."],
    "badger": ["{He} had a black and white face."], "zebra": ["{He} had black and white stripes."], "parrot": ["{He} had bright feathers and loved to talk."],
    "penguin": ["{He} walked in a funny way."], "snail": ["{He} carried {his} house everywhere."], "panda": ["{He} was round and soft."],
    "kitten": ["{He} had tiny paws."], "puppy": ["{He} had floppy ears."], "girl": ["{He} had long hair and a big smile."], "boy": ["{He} had short hair and a big smile."],
}
# What would be odd: a duck that cannot swim, an owl that fears the dark.
CLIMBERS = ["bird", "owl", "squirrel", "cat", "kitten", "monkey", "parrot", "giraffe", "panda"]
NOT_IN = {"snow": ["jungle", "island", "beach", "sea"], "stuck": ["castle", "beach", "sea", "pond"], "storm": ["castle"]}
AT_EASE = {
    "swim": ["duck", "frog", "turtle", "beaver", "penguin"], "sing": ["bird", "parrot"], "climb": ["squirrel", "cat", "monkey", "bird", "owl", "parrot", "goat", "panda"], "whistle": ["bird", "parrot"], "the dark": ["owl", "mouse", "hedgehog", "badger"],
    "deep water": ["duck", "frog", "turtle", "beaver", "penguin"], "high places": CLIMBERS + ["goat"],
}
FOODS = ["plate of pancakes", "bag of nuts", "bowl of soup", "cake", "pie", "loaf of bread", "basket of apples", "bowl of berries", "jar of honey"]
GAMES = ["hide and seek", "tag", "catch", "ball", "a guessing game", "pirates"]
# A skill with its past tense, and what goes wrong at first.
SKILLS = {
    "swim": ("swam", "swimming", ["{He} splashed a lot and swallowed some water.", "{He} sank like a stone and came up coughing."]),
    "sing": ("sang", "singing", ["{His} voice was very squeaky.", "{He} forgot all the words."]),
    "whistle": ("whistled", "whistling", ["{He} blew and blew, but no sound came out.", "It sounded like a leaky pot."]),
    "cook": ("cooked", "cooking", ["{His} soup was far too salty.", "{He} burnt the soup."]),
    "climb": ("climbed", "climbing", ["{He} slid down again and again.", "{He} got stuck after two steps."]),
    "dance": ("danced", "dancing", ["{He} fell over {his} own feet.", "{He} turned too fast and got dizzy."]),
    "paint": ("painted", "painting", ["{He} spilled the paint all over the floor.", "{His} picture looked like a puddle."]),
    "bake": ("baked", "baking", ["{His} first cake was as hard as a stone.", "{His} first cake was burnt and black."]),
    "skate": ("skated", "skating", ["{He} slipped and fell on {his} bottom.", "{His} legs went in two directions."]),
    "juggle": ("juggled", "juggling", ["{He} dropped every single ball.", "A ball fell right on {his} nose."]),
}
FEARS = {
    "the dark": ("The dark is only the day taking a rest", "look at the bright stars", "{He} saw a hundred stars, and the dark was not scary any more."),
    "thunder": ("Thunder is only the clouds clapping their hands", "count slowly until it stops", "{He} counted to ten, and the thunder went far away."),
    "deep water": ("The water will carry you if you are calm", "hold my hand and step in slowly", "{He} took one small step and then another, and the water felt nice."),
    "loud noises": ("A noise cannot hurt you", "put your hands over your ears and smile", "{He} put {his} hands over {his} ears and smiled, and the noise was not so bad."),
    "shadows": ("A shadow is only a shape made by the light", "wave at it, and it will wave back", "{He} waved at the shadow, and the shadow waved back."),
    "high places": ("You only need to look ahead", "take one step at a time", "{He} took one step and then another, until {he} stood at the very top."),
}


def article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def cap(text):
    return text[0].upper() + text[1:]


# "A baby kitten" is odd, and "a baby girl" does not walk.
YOUNG = ["girl", "boy", "kitten", "puppy"]
NO_BABY = ["girl", "boy", "kitten", "puppy", "hen", "cow"]


class Who:
    """A character: the name decides the pronouns everywhere."""

    def __init__(self, rng, kind, adjectives, taken=(), name=None):
        female = kind == "girl" or (kind != "boy" and (name in GIRLS if name else rng.random() < 0.5))
        self.kind = kind
        self.name = name or rng.choice([n for n in (GIRLS if female else BOYS) if n not in taken])
        self.adjective = rng.choice([a for a in adjectives if kind not in YOUNG or a not in ("old", "wise", "young")])
        self.he, self.him, self.his = ("she", "her", "her") if female else ("he", "him", "his")
        self.He, self.His = cap(self.he), cap(self.his)
        self.a = article(f"{self.adjective} {kind}")
        self.the = f"the {kind}"
        self.The = f"The {kind}"

    def put(self, text):
        return text.format(he=self.he, him=self.him, his=self.his, He=self.He, His=self.His)


class Story:
    """One telling. `want` may fix the plot, hero, helper, thing, colour or place."""

    def __init__(self, rng, **want):
        self.rng = rng
        self.facts = []
        plot = want.get("plot")
        if plot is None:
            thing = want.get("thing")
            fits = [p for p in PLOTS if thing is None or thing in PLOTS[p][1]]
            fits = [p for p in fits if want.get("place") not in NOT_IN.get(p, ())]
            if want.get("helper") in NO_BABY:
                fits = [p for p in fits if p != "baby"]
            if want.get("hero") in CLIMBERS and len(fits) > 1:
                fits = [p for p in fits if p != "stuck"]
            plot = rng.choice(fits)
        self.plot = plot
        tell, things, _ = PLOTS[plot]
        name = want.get("name")
        hero_kind = want.get("hero")
        while hero_kind is None or (plot == "stuck" and hero_kind in CLIMBERS):
            child = ("girl" if name in GIRLS else "boy") if name else rng.choice(list(CHILDREN))
            hero_kind = child if rng.random() < 0.3 else rng.choice(ANIMALS)
        adjectives = [want["adjective"]] if "adjective" in want else HERO_ADJECTIVES
        self.hero = Who(rng, hero_kind, adjectives, name=name)
        helper_kind = want.get("helper")
        while helper_kind is None or helper_kind == hero_kind or (plot == "baby" and helper_kind in NO_BABY):
            helper_kind = rng.choice(ANIMALS + ["girl", "boy"])
        self.helper = Who(rng, helper_kind, HELPER_ADJECTIVES, (self.hero.name,))
        self.thing = want.get("thing") or (rng.choice(things) if things else None)
        self.colour = want.get("colour") or rng.choice(COLOURS)
        self.place = want.get("place") or rng.choice([p for p in PLACES if p not in NOT_IN.get(plot, ())])
        self.preposition, self.spots = PLACES[self.place]
        self.where = f"{self.preposition} the {self.place}"
        self.paragraphs = [" ".join(p) for p in tell(self)]
        self.text = "\n\n".join(self.paragraphs)
        self.ask(f"What was the name of the {hero_kind}?", f"The {hero_kind} was called {self.hero.name}.")
        self.ask(f"What was the {hero_kind} called?", f"The {hero_kind} was called {self.hero.name}.")
        self.ask(f"Who was {self.hero.name}?", f"{self.hero.name} was {self.hero.a}.")

    def pick(self, *options):
        return self.rng.choice(options)

    def maybe(self, *options, p=0.5):
        return [self.rng.choice(options)] if self.rng.random() < p else []

    def ask(self, question, answer):
        self.facts.append((question, answer))

    # Phrases shared by the plots.

    def opening(self):
        h, w = self.hero, self.where
        self.ask("Where did the story happen?", f"It happened {w}.")
        self.ask(f"Where did {h.name} live?", f"{h.name} lived {w}.")
        more = self.maybe(*SCENERY[self.place], p=0.3) + self.maybe(*map(h.put, TRAITS[h.kind]), p=0.3)
        return " ".join([self.introduction(h, w), *more[:1]])

    def introduction(self, h, w):
        return self.pick(
            f"Once upon a time, there was {h.a} named {h.name}. {h.name} lived {w}.",
            f"Once upon a time there was {h.a} called {h.name} who lived {w}.",
            f"The {h.adjective} {h.kind} {h.name} lived {w}.",
            f"Once upon a time, {h.a} named {h.name} lived {w}.",
            f"Once upon a time, {w}, there lived {h.a} named {h.name}.",
            f"There was once {h.a} called {h.name} who lived {w}.",
            f"{cap(w)}, there lived {h.a} called {h.name}.",
            f"{h.name} was {h.a} who lived {w}.",
            f"Long ago, {h.a} named {h.name} lived {w}.",
        )

    def day(self):
        return self.pick("One day", "One day", "One morning", "One sunny day", "One spring day", "One fine day", "Early one morning", "One windy day", "One afternoon", "One bright morning")

    def meets(self):
        f, h = self.helper, self.hero
        return self.pick(
            f"Then {f.a} named {f.name} came by.",
            f"Just then, {f.a} named {f.name} walked by.",
            f"Soon {h.he} met {f.a} named {f.name}.",
            f"Then {h.he} heard a voice. It was {f.a} named {f.name}.",
            f"After a while, {f.a} named {f.name} came along.",
            f"{cap(f.a)} named {f.name} saw {h.him} and stopped.",
        )

    def asks_wrong(self):
        f, h = self.helper, self.hero
        return self.pick(
            f'"What is wrong, {h.name}?" asked {f.name}.',
            f'"Why are you so sad?" asked {f.the}.',
            f'"Can I help you?" asked {f.name}.',
            f'"What happened?" asked {f.the}.',
            f'"You look sad. What is the matter?" asked {f.name}.',
            f'"Why do you look so sad, {h.name}?" {f.name} asked.',
        )

    def thanks(self):
        f, h = self.helper, self.hero
        return self.pick(
            f'"Thank you, {f.name}!" said {h.name}.',
            f'"Thank you so much, {f.name}!" {h.name} said with a big smile.',
            f'{h.name} gave {f.name} a big hug.',
            f'"You are a true friend," said {h.name}.',
            f'"I will never forget this," {h.name} told {f.name}.',
            f"{h.name} thanked {f.name} again and again.",
            f'{h.name} hugged {f.name} and said, "Thank you!"',
        )

    def friends(self):
        f, h = self.helper, self.hero
        return self.pick(
            f"That night, {h.name} slept well and dreamed of {f.name}.",
            f"{h.name} went home and told everyone about {f.name}.",
            f"The two of them laughed and walked home together.",
            f"Since then, {h.name} and {f.name} have told this story many times.",
            f"From then on, {f.name} came to visit every week.",
            f"It was a very good day for {h.name} and {f.name}.",
            f"From that day on, {h.name} and {f.name} were best friends.",
            f"{h.name} and {f.name} became good friends.",
            f"After that, {h.name} and {f.name} played together every day.",
            f"{h.name} and {f.name} stayed friends for ever.",
            f"And so {h.name} and {f.name} lived happily ever after.",
        )

    def who_helped(self):
        f, h = self.helper, self.hero
        self.ask(f"Who helped {h.name}?", f"{f.name}, {f.a}, helped {h.name}.")
        self.ask(f"Who was {f.name}?", f"{f.name} was {f.a} who helped {h.name}.")

    def feels(self, end, why):
        h = self.hero
        self.ask(f"How did {h.name} feel at the end?", f"{h.name} felt {end} because {why}.")

    def has_thing(self):
        h, ct = self.hero, f"{self.colour} {self.thing}"
        self.ask(f"What colour was the {self.thing}?", f"The {self.thing} was {self.colour}.")
        return self.pick(
            f"{h.name} had {article(ct)} that {h.he} loved very much.",
            f"{h.He} had {article(ct)} and took it everywhere.",
            f"{h.name} loved {h.his} {ct} more than anything.",
            f"{h.His} grandmother had given {h.him} {article(ct)}.",
            f"Every day, {h.he} played with {h.his} {ct}." if self.thing in ("ball", "kite", "drum", "doll", "balloon", "whistle", "boat", "flute") else f"{h.He} was very proud of {h.his} {ct}.",
            f"The best thing {h.he} had was {article(ct)}.",
        )


# --- the plots ---------------------------------------------------------------


def lost(s):
    h, f, t, ct = s.hero, s.helper, s.thing, f"{s.colour} {s.thing}"
    spot = s.rng.choice(s.spots)
    s.ask(f"What did {h.name} lose?", f"{h.name} lost {article(ct)}.")
    s.ask(f"Where was the {t}?", f"The {t} was {spot}.")
    s.who_helped()
    s.feels("happy", f"{h.he} had {h.his} {t} again")
    yield [s.opening(), s.has_thing()]
    yield [
        s.pick(
            f"{s.day()}, {h.name} could not find the {t}.",
            f"{s.day()}, the {t} was gone.",
            f"{s.day()}, {h.he} lost the {t}.",
        ),
        *s.maybe(f"{h.name} looked here and there, but it was nowhere to be seen.", f"{h.He} looked everywhere, but {h.he} could not see it."),
        s.pick(f"{h.name} was very sad.", f"{h.He} sat down and began to cry.", f"{h.name} felt sad and did not know what to do."),
        s.meets(),
        s.asks_wrong(),
        s.pick(f'"I lost my {ct}," said {h.name}.', f'"I cannot find my {ct}," said {h.name}.', f'"My {ct} is gone," {h.name} said.'),
        s.pick(f'"Do not worry. I will help you look for it," said {f.name}.', f'"Let us look for it together," said {f.the}.', f'"I will help you," said {f.name}. "We will find it."'),
    ]
    yield [
        s.pick("They looked and looked.", "They looked high and low.", f"They looked all over the {s.place}."),
        s.pick(f"At last, {f.name} found the {t} {spot}.", f"Then {f.name} looked {spot}, and there was the {t}!", f"{cap(spot)}, they saw something {s.colour}. It was the {t}!"),
        s.pick(f"{h.name} was so happy that {h.he} jumped up and down.", f"{h.name} laughed and held the {t} tight.", f"{h.name} was very happy to have {h.his} {t} again."),
        s.thanks(),
        s.friends(),
    ]


def stuck(s):
    h, t, ct = s.hero, s.thing, f"{s.colour} {s.thing}"
    f = s.helper
    how = {
        "bird": "flew up", "owl": "flew up", "parrot": "flew up", "giraffe": "reached up", "panda": "climbed up", "squirrel": "climbed up", "cat": "climbed up", "kitten": "climbed up", "monkey": "climbed up",
        "elephant": "reached up", "girl": "climbed up", "boy": "climbed up", "bear": "climbed up",
    }
    s.ask(f"Where was the {t}?", f"The {t} was stuck in a tree.")
    s.ask(f"What was stuck in the tree?", f"{cap(article(ct))} was stuck in the tree.")
    s.who_helped()
    s.feels("happy", f"{h.he} had {h.his} {t} again")
    yield [s.opening(), s.has_thing()]
    yield [
        s.pick(f"{s.day()}, the wind took the {t} and it got stuck in a tall tree.", f"{s.day()}, a strong wind blew the {t} up into a tree."),
        s.pick(f"{h.name} jumped and jumped, but {h.he} could not reach it.", f"{h.He} tried to get it, but the tree was too tall.", f"{h.name} could not reach it, and {h.he} was sad."),
        s.meets(),
        s.asks_wrong(),
        s.pick(f'"My {t} is stuck in the tree," said {h.name}.', f'"The wind took my {t}, and I cannot reach it," said {h.name}.'),
        s.pick(f'"I can get it for you," said {f.name}.', f'"Wait here. I will get it," said {f.the}.'),
    ]
    if f.kind in how:
        rescue = s.pick(f"{f.name} {how[f.kind]} and got the {t}.", f"{f.The} {how[f.kind]} into the tree and brought the {t} down." if "reached" not in how[f.kind] else f"{f.The} reached up and took the {t} down.")
    else:
        rescue = s.pick(f"{f.name} shook the tree, and the {t} fell down.", f"{f.name} found a long stick and pushed the {t} down.")
    yield [
        rescue,
        s.pick(f"{h.name} clapped and cheered.", f"{h.name} was so happy that {h.he} danced around the tree.", f"{h.name} smiled and held the {t} tight."),
        s.thanks(),
        s.friends(),
    ]


def lonely(s):
    h, f, game = s.hero, s.helper, s.rng.choice(GAMES)
    s.ask(f"What did they play?", f"They played {game}.")
    s.ask(f"Who did {h.name} meet?", f"{h.name} met {f.a} named {f.name}.")
    s.ask(f"Who was {f.name}?", f"{f.name} was {f.a}.")
    s.feels("happy", f"{h.he} had a new friend")
    yield [s.opening(), s.pick(f"{h.name} was lonely because {h.he} had no friends.", f"{h.He} had no one to play with, and {h.he} felt lonely.", f"{h.name} wished for a friend.")]
    yield [
        s.pick(f"{s.day()}, {h.name} met {f.a} named {f.name}.", f"{s.day()}, {h.he} saw {f.a} sitting all alone. It was {f.name}."),
        s.pick(f"{h.name} was shy and did not know what to say.", f"At first, {h.name} was too shy to speak."),
        s.pick(f"But {f.name} smiled at {h.him}.", f"But {f.the} gave {h.him} a warm smile."),
        s.pick(f'"Hello! Do you want to play {game}?" asked {f.name}.', f'"Will you play {game} with me?" {f.name} asked.'),
        s.pick(f'"Yes, please!" said {h.name}.', f'"I would love to!" said {h.name}.'),
    ]
    yield [
        s.pick(f"They played {game} until the sun went down.", f"They played {game} all day and laughed a lot.", f"They played {game} {s.where} and had so much fun."),
        s.pick(f"{h.name} was not lonely any more.", f"Now {h.name} had a friend, and {h.he} was very happy."),
        s.friends(),
    ]


def sharing(s):
    h, f, food = s.hero, s.helper, s.rng.choice(FOODS)
    short = food.split(" of ")[-1]
    it = "them" if short.endswith("s") else "it"
    s.ask(f"What did {h.name} share?", f"{h.name} shared {h.his} {short} with {f.name}.")
    s.ask(f"Who was hungry?", f"{f.name}, {f.a}, was hungry.")
    s.ask(f"Who was {f.name}?", f"{f.name} was {f.a}.")
    s.feels("happy", f"{h.he} shared {h.his} {short} with a friend")
    yield [
        s.opening(),
        s.pick(f"{s.day()}, {h.name} had {article(food)}.", f"{s.day()}, {h.his} grandmother gave {h.him} {article(food)}."),
        s.pick(f'"This is all for me," {h.he} said.', f"{h.He} wanted to eat {it} all alone."),
    ]
    yield [
        s.meets(),
        s.pick(f'"I am so hungry," said {f.name}. "May I have some?"', f'"I have not eaten all day," said {f.the}. "Will you share with me?"'),
        s.pick(f'"No, it is mine," said {h.name}.', f"{h.name} shook {h.his} head and said no.") if it == "it" else f"{h.name} shook {h.his} head and said no.",
        s.pick(f"{f.name} looked sad and began to walk away.", f"{f.The} felt sad and turned to go."),
        s.pick(f"{h.name} felt bad.", f"Then {h.name} was sorry."),
        s.pick(f'"Wait!" {h.he} called. "We can share."', f'"Please come back!" {h.he} said. "There is enough for two."'),
    ]
    yield [
        s.pick(f"They sat down together and ate the {short}.", f"{h.name} gave half of the {short} to {f.name}."),
        s.pick(f"The {short} tasted better with a friend.", "It was the best meal of the day."),
        s.pick(f"{h.name} learned that sharing is fun.", f"{h.name} learned that it is good to share."),
        s.friends(),
    ]


def brave(s):
    h, f = s.hero, s.helper
    fear = s.rng.choice([x for x in FEARS if h.kind not in AT_EASE.get(x, ())])
    saying, advice, result = FEARS[fear]
    s.ask(f"What was {h.name} afraid of?", f"{h.name} was afraid of {fear}.")
    s.who_helped()
    s.feels("proud", f"{h.he} was not afraid any more")
    yield [s.opening(), s.pick(f"{h.name} was afraid of {fear}.", f"{h.He} had one big fear. {h.He} was afraid of {fear}.")]
    yield [
        s.pick(f"{h.name} wanted to be brave, but {h.he} did not know how.", f"The others laughed at {h.him}, and that made {h.him} sad."),
        s.meets(),
        s.pick(f'"I am afraid of {fear}," said {h.name}.', f'{h.name} told {f.him} about {fear}.'),
        s.pick(f'"{saying}," said {f.name}. "Just {advice}."', f'"I was afraid once too," said {f.name}. "{saying}. Just {advice}."'),
    ]
    yield [
        s.pick(f"{h.name} took a deep breath.", f"{h.name} closed {h.his} eyes and opened them again."),
        h.put(result),
        s.pick(f'"I did it!" {h.he} cried.', f'"I am brave!" said {h.name}.'),
        s.pick(f"{f.name} was very proud of {h.him}.", f'"I knew you could do it," said {f.name}.'),
        s.pick(f"From that day on, {h.name} was not afraid of {fear}.", f"After that, {h.name} was the bravest {h.kind} {s.where}."),
    ]


def learning(s):
    h, f = s.hero, s.helper
    skill = s.rng.choice([x for x in SKILLS if h.kind not in AT_EASE.get(x, ())])
    past, doing, fails = SKILLS[skill]
    s.ask(f"What did {h.name} want to learn?", f"{h.name} wanted to learn to {skill}.")
    s.ask(f"Who taught {h.name}?", f"{f.name}, {f.a}, taught {h.name}.")
    s.ask(f"Who was {f.name}?", f"{f.name} was {f.a}.")
    s.feels("proud", f"{h.he} could {skill}")
    yield [s.opening(), s.pick(f"{h.name} wanted to learn to {skill}.", f"More than anything, {h.name} wanted to {skill}.")]
    yield [
        s.pick(f"{s.day()}, {h.he} tried for the first time.", f"{s.day()}, {h.he} tried to {skill}."),
        h.put(s.rng.choice(fails)),
        s.pick(f'"I will never learn it," said {h.name}.', f'"It is too hard," {h.he} said.'),
        s.meets(),
        s.pick(f'"Do not give up," said {f.name}. "I will teach you."', f'"It only takes time," said {f.the}. "Let me show you."'),
        s.pick("So they practised every day.", f"Every morning, {f.name} showed {h.him} what to do."),
    ]
    yield [
        s.pick(f"Day by day, {h.name} got better.", "It got a little easier each time."),
        s.pick(f"At last, {h.name} {past} so well that everyone clapped.", f"One evening, {h.name} {past} for all the others, and everyone cheered.", f"After a while, {h.name} {past} better than {f.name}!"),
        s.thanks(),
        s.pick(f"{h.name} learned that you should never give up.", f"Now {h.name} loves {doing} more than anything.", f"{h.name} was very proud."),
    ]


def broken(s):
    h, f, t, ct = s.hero, s.helper, s.thing, f"{s.colour} {s.thing}"
    s.ask(f"What did {h.name} break?", f"{h.name} broke {article(ct)}.")
    s.ask(f"What colour was the {t}?", f"The {t} was {s.colour}.")
    s.ask(f"Who was {f.name}?", f"{f.name} was {f.a}, a friend of {h.name}.")
    s.feels("happy", f"{h.he} told the truth")
    yield [
        s.opening(),
        s.pick(f"{h.His} best friend was {f.a} named {f.name}.", f"{h.He} had a good friend, {f.a} named {f.name}."),
        s.pick(f"{f.name} had {article(ct)}.", f"{f.name} loved {f.his} {ct}."),
    ]
    yield [
        s.pick(f"{s.day()}, {h.name} was playing with the {t} and broke it.", f"{s.day()}, {h.name} dropped the {t}, and it broke."),
        s.pick(f"{h.name} was scared.", f"{h.name} felt very bad."),
        s.pick(f"{h.He} wanted to hide the {t}, but {h.he} knew that was wrong.", f"{h.He} thought about it for a long time. Then {h.he} knew what to do."),
        s.pick(f"{h.He} went to {f.name} and told the truth.", f"{h.He} took the {t} to {f.name}."),
        s.pick(f'"I am sorry. I broke your {t}," {h.he} said.', f'"I broke your {t}. I am so sorry," said {h.name}.'),
    ]
    yield [
        s.pick(f"{f.name} was sad, but {f.he} was not angry.", f"{f.name} looked at the {t} and was quiet for a while."),
        s.pick(f'"Thank you for telling me the truth," said {f.name}.', f'"It is all right," said {f.name}. "You told me the truth."'),
        s.pick(f"Together they fixed the {t}.", f"They worked together, and soon the {t} was as good as new."),
        s.pick(f"{h.name} learned that it is best to tell the truth.", f"{h.name} was glad that {h.he} had told the truth."),
        s.friends(),
    ]


def found(s):
    h, f, t, ct = s.hero, s.helper, s.thing, f"{s.colour} {s.thing}"
    s.ask(f"What did {h.name} find?", f"{h.name} found {article(ct)}.")
    s.ask(f"What colour was the {t}?", f"The {t} was {s.colour}.")
    s.ask(f"Whose {t} was it?", f"It was the {t} of {f.name}, {f.a}.")
    s.feels("happy", f"{h.he} gave the {t} back")
    yield [
        s.opening(),
        s.pick(f"{s.day()}, {h.name} found {article(ct)}.", f"{s.day()}, {h.name} saw something {s.colour} on the ground. It was {article(s.thing)}!"),
        s.pick(f'"How pretty!" said {h.name}.', f'"Whose {t} is this?" {h.he} asked.'),
    ]
    yield [
        s.pick(f"{h.name} wanted to keep it.", f"{h.name} picked it up and looked at it."),
        s.pick(f"But then {h.he} heard someone crying.", f"Then {h.he} heard a sad voice."),
        s.pick(f"It was {f.a} named {f.name}.", f"{cap(f.a)} named {f.name} was looking for something."),
        s.pick(f'"I lost my {ct}," said {f.name}.', f'"My {t} is gone, and I miss it so much," said {f.name}.'),
        s.pick(f"{h.name} thought for a moment.", f"{h.name} looked at the {t} in {h.his} hands." if h.kind in CHILDREN else f"{h.name} looked at the {t} again."),
    ]
    yield [
        s.pick(f'"Here is your {t}," {h.he} said, and gave it back.', f'"I found it," said {h.name}, and gave the {t} to {f.name}.'),
        s.pick(f"{f.name} smiled from ear to ear.", f"{f.name} was so happy that {f.he} jumped for joy."),
        s.pick(f'"You are very kind, {h.name}," said {f.the}.', f'"Thank you for being so honest, {h.name}!" said {f.name}.'),
        s.pick(f"{h.name} felt warm inside.", f"{h.name} was happy too."),
        s.friends(),
    ]


def storm(s):
    h, f = s.hero, s.helper
    s.ask(f"What was the weather like?", "It was raining hard.")
    s.who_helped()
    s.feels("happy", f"{h.he} was warm and dry")
    yield [s.opening(), s.pick(f"{h.name} loved to go for long walks.", f"{h.He} liked to play outside all day.")]
    yield [
        s.pick(f"{s.day()}, dark clouds came, and it began to rain.", f"{s.day()}, a big storm came, and the rain fell hard."),
        s.pick(f"{h.name} was far from home and got very wet.", f"{h.name} was cold and wet, and home was far away."),
        s.pick(f"{h.He} sat under a tree and shivered.", f'"Where can I go?" {h.he} cried.'),
        s.meets(),
        s.pick(f'"Come with me," said {f.name}. "My house is warm and dry."', f'"You are all wet!" said {f.name}. "Come to my house."'),
    ]
    yield [
        s.pick(f"They ran to the house of {f.name}.", f"So {h.name} went home with {f.him}."),
        s.pick(f"They sat by the fire and drank warm milk.", f"{f.name} gave {h.him} a soft blanket and some hot soup."),
        s.pick("Soon the rain stopped, and a rainbow came out.", "When the storm was over, the sun came out again."),
        s.thanks(),
        s.friends(),
    ]


def birthday(s):
    h, f, t, ct = s.hero, s.helper, s.thing, f"{s.colour} {s.thing}"
    s.ask(f"What did {h.name} get?", f"{h.name} got {article(ct)}.")
    s.ask(f"What colour was the {t}?", f"The {t} was {s.colour}.")
    s.ask(f"Who gave {h.name} the {t}?", f"{f.name}, {f.a}, gave {h.him} the {t}.")
    s.ask(f"Who was {f.name}?", f"{f.name} was {f.a}.")
    s.feels("happy", f"{f.name} had not forgotten {h.his} birthday")
    yield [s.opening(), s.pick(f"It was {h.his} birthday, but no one said a word about it.", f"Today was {h.his} birthday."), s.pick(f'"Everyone has forgotten me," said {h.name}.', f"But no one came to see {h.him}.")]
    yield [
        s.pick(f"{h.name} went for a walk and felt sad.", f"{h.name} sat alone and felt sad."),
        s.pick(f"Then {h.he} saw {h.his} friend {f.name}, {f.a}.", f"Then {h.his} friend {f.name}, {f.a}, came running."),
        s.pick(f'"Come with me, {h.name}!" said {f.name}.', f'"Close your eyes, {h.name}!" said {f.name}.'),
        s.pick(f"{f.name} took {h.him} to a table with a big cake.", f"Behind a tree, there was a table with a big cake."),
        s.pick('"Surprise!" everyone shouted.', '"Happy birthday!" everyone called.'),
    ]
    yield [
        s.pick(f"{f.name} gave {h.him} a box. Inside was {article(ct)}." if t != "box" else f"{f.name} gave {h.him} {article(ct)}.", f"{f.name} gave {h.him} {article(ct)}."),
        s.pick(f'"It is just what I wanted!" said {h.name}.', f'"I love it!" said {h.name}.'),
        s.pick("They ate the cake and sang songs.", "They danced and sang until the stars came out."),
        s.pick("It was the best birthday ever.", f"It was the happiest day of the year for {h.name}."),
    ]


def seed(s):
    h, f = s.hero, s.helper
    flower = f"{s.colour} flower"
    s.ask(f"What did {h.name} plant?", f"{h.name} planted a seed.")
    s.ask(f"What colour was the flower?", f"The flower was {s.colour}.")
    s.ask(f"Who gave {h.name} the seed?", f"{f.name}, {f.a}, gave {h.him} the seed.")
    s.ask(f"Who was {f.name}?", f"{f.name} was {f.a}.")
    s.feels("happy", "the seed became a flower")
    yield [s.opening(), s.pick(f"{s.day()}, {f.a} named {f.name} gave {h.him} a tiny seed.", f"{s.day()}, {h.he} got a tiny seed from {f.a} named {f.name}.")]
    yield [
        s.pick(f'"Plant it and be patient," said {f.name}.', f'"Give it water every day," said {f.the}.'),
        s.pick(f"{h.name} put the seed in the ground and gave it water.", f"{h.name} dug a small hole and put the seed in it."),
        s.pick("The next day, nothing happened.", f"{h.He} waited and waited, but nothing came up."),
        s.pick(f'"Maybe it will never grow," said {h.name}.', f"{h.name} was a little sad."),
        s.pick(f'"Good things take time," said {f.name}.', f'"Just wait a little longer," said {f.the}.'),
    ]
    yield [
        s.pick("Then, one morning, there was a small green leaf.", "After many days, a green leaf came out of the ground."),
        s.pick(f"It grew and grew, until it was {article('beautiful ' + flower)}.", f"Soon it became a tall {flower}."),
        s.pick(f"{h.name} danced for joy.", f"{h.name} ran to show it to {f.name}."),
        s.pick(f"{h.name} learned that it is good to be patient.", f'"You were right, {f.name}," said {h.name}. "Good things take time."'),
    ]


def race(s):
    h, f = s.hero, s.helper
    prize = s.pick("a golden cup", "a big cake", "a shiny medal")
    s.ask("Who won the race?", f"{h.name} won the race.")
    s.ask("What was the prize?", f"The prize was {prize}.")
    s.ask(f"Who was {f.name}?", f"{f.name} was {f.a} who ran against {h.name}.")
    s.feels("proud", f"{h.he} won the race")
    yield [s.opening(), s.pick(f"{s.day()}, there was a big race, and the prize was {prize}.", f"{s.day()}, everyone came to see the big race. The prize was {prize}.")]
    yield [
        s.pick(f'"I am the fastest of all," said {f.name}, {f.a}.', f'{cap(f.a)} named {f.name} laughed and said, "You can never beat me."'),
        s.pick(f"{h.name} said nothing and got ready.", f'"We will see," said {h.name}.'),
        s.pick(f"The race began, and {f.name} was far ahead.", f"They began to run, and soon {f.name} was out of sight."),
        s.pick(f"But {f.the} stopped to rest and fell asleep.", f"But {f.name} stopped to eat some berries and forgot the time."),
        s.pick(f"{h.name} kept going, step by step.", f"{h.name} did not stop, not even once."),
    ]
    yield [
        s.pick(f"When {f.name} looked up, it was too late.", f"{f.name} ran as fast as {f.he} could, but it was too late."),
        s.pick(f"{h.name} won the race and got {prize}.", f"{h.name} crossed the line first and won {prize}."),
        s.pick(f'"Well done, {h.name}," said {f.name}. "I was too proud."', f'"I am sorry I was so proud," said {f.the}.'),
        s.pick("Slow and steady wins the race.", f"{h.name} smiled and shook hands with {f.name}." if f.kind in CHILDREN and h.kind in CHILDREN else f"{h.name} smiled and was very proud."),
    ]


def sleepless(s):
    h, f = s.hero, s.helper
    gift = s.pick("a soft song", "a story about the moon", "a song about the stars")
    verb = "told" if "story" in gift else "sang"
    s.ask(f"Why was {h.name} tired?", f"{h.name} was tired because {h.he} could not sleep.")
    s.ask(f"What did {f.name} do?", f"{f.name} {verb} {h.him} {gift}.")
    s.who_helped()
    s.feels("calm", f"{f.name} {verb} {h.him} {gift}")
    yield [s.opening(), s.pick(f"One night, {h.name} could not sleep.", f"It was late at night, but {h.name} was wide awake.")]
    yield [
        s.pick(f"{h.He} turned to the left and to the right.", f"{h.He} closed {h.his} eyes, but sleep did not come."),
        s.pick(f"{h.He} counted sheep, but it did not help." if h.kind != "sheep" else f"{h.He} counted the stars, but it did not help.", f"{h.He} drank some warm milk, but it did not help."),
        s.pick(f"So {h.he} went outside to look at the moon.", f"So {h.he} got up and went for a little walk."),
        s.pick(f"There sat {f.a} named {f.name}.", f"There {h.he} met {f.a} named {f.name}."),
        s.pick(f'"Why are you not asleep?" asked {f.name}.', f'"It is very late, little one," said {f.the}.'),
        s.pick(f'"I am tired, but I cannot sleep," said {h.name}.', f'"Sleep does not come to me tonight," said {h.name}.'),
    ]
    yield [
        s.pick(f"{f.name} sat down beside {h.him} and {verb} {h.him} {gift}.", f'"Then listen," said {f.name}, and {f.he} {verb} {h.him} {gift}.'),
        s.pick(f"Little by little, {h.name} felt calm.", f"It was so quiet and beautiful that {h.name} felt calm."),
        s.pick(f"{h.His} eyes closed, and {h.he} fell asleep.", f"Soon {h.name} was fast asleep."),
        s.pick(f'"Good night, {h.name}," said {f.name}.', f"And the moon shone on {h.name} all night long."),
    ]


def treasure(s):
    h, f = s.hero, s.helper
    spot = s.rng.choice(s.spots)
    inside = s.pick("golden coins", "old books", "shiny stones", "sweet candy")
    s.ask("What did they find?", f"They found a chest full of {inside}.")
    s.ask("Where was the chest?", f"The chest was {spot}.")
    s.ask(f"What did {h.name} find?", f"{h.name} found an old map.")
    s.ask(f"Who was {f.name}?", f"{f.name} was {f.a}, a friend of {h.name}.")
    s.feels("happy", f"{h.he} found a treasure with a friend")
    yield [s.opening(), s.pick(f"{s.day()}, {h.name} found an old map.", f"{s.day()}, the wind blew an old map to {h.name}.")]
    yield [
        s.pick(f'"This map shows a treasure!" {h.he} cried.', f"On the map there was a big red cross."),
        s.pick(f"{h.He} ran to {h.his} friend {f.name}, {f.a}.", f"{h.He} showed it to {f.name}, {f.a} who lived near by."),
        s.pick('"Let us go and look for it," they said.', f'"I will come with you," said {f.name}.', f'"A treasure! Let us find it," said {f.the}.'),
        s.pick(f"They walked for a long time {s.where}.", "They followed the map, step by step."),
        s.pick(f"Then {h.name} looked {spot}.", f"At last they came to the right place, {spot}."),
    ]
    yield [
        s.pick("There was an old chest!", "And there it was, an old chest!"),
        s.pick(f"They opened it, and it was full of {inside}.", f"It was full of {inside}."),
        s.pick(f'"Half is for you, and half is for me," said {h.name}.', f"They shared everything with their friends."),
        s.pick("But the best treasure is a good friend.", f'"The best part was to find it with you," said {f.name}.'),
        s.friends(),
    ]


def ill(s):
    h, f, t, ct = s.hero, s.helper, s.thing, f"{s.colour} {s.thing}"
    s.ask(f"Who was ill?", f"{f.name}, {f.a}, was ill.")
    s.ask(f"Who was {f.name}?", f"{f.name} was {f.a}, a friend of {h.name}.")
    s.ask(f"What did {h.name} bring?", f"{h.name} brought soup and {article(ct)}.")
    s.ask(f"What colour was the {t}?", f"The {t} was {s.colour}.")
    s.feels("happy", f"{h.his} friend was well again")
    yield [s.opening(), s.pick(f"{h.His} best friend was {f.a} named {f.name}.", f"{h.He} played every day with {f.name}, {f.a}.")]
    yield [
        s.pick(f"{s.day()}, {f.name} did not come out to play.", f"{s.day()}, {h.name} waited, but {f.name} did not come."),
        s.pick(f"{h.name} went to see {f.him}.", f"{h.name} knocked at the door of {f.his} house."),
        s.pick(f'"I am ill and must stay in bed," said {f.name}.', f'"My head is hot, and I feel weak," said {f.the}.'),
        s.pick(f"{h.name} wanted to help.", f'"I know what to do," said {h.name}.'),
        s.pick(f"{h.He} ran home and cooked some hot soup.", f"{h.He} made a big pot of soup."),
        s.pick(f"{h.He} also brought {article(ct)} to cheer {f.him} up.", f"Then {h.he} took {article(ct)} as a gift and came back."),
    ]
    yield [
        s.pick(f"{f.name} ate the soup and smiled.", f"{f.The} ate all the soup and felt a little better."),
        s.pick(f'"What a lovely {t}!" {f.he} said.', f'"The {t} is beautiful. Thank you, {h.name}!" said {f.name}.'),
        s.pick(f"After a few days, {f.name} was well again.", f"Soon {f.name} was strong and well."),
        s.pick(f"{h.name} and {f.name} ran outside and played until dark.", f"{h.name} was happy to have {h.his} friend back."),
    ]


def snow(s):
    h, f, t, ct = s.hero, s.helper, s.thing, f"{s.colour} {s.thing}"
    s.ask("What did they build?", "They built a snowman.")
    s.ask(f"What did the snowman wear?", f"The snowman wore {article(ct)}.")
    s.ask(f"What colour was the {t}?", f"The {t} was {s.colour}.")
    s.ask(f"Who was {f.name}?", f"{f.name} was {f.a}.")
    s.feels("happy", f"{h.he} built a snowman with {f.name}")
    yield [s.opening(), s.pick(f"One winter morning, {h.name} looked out and everything was white.", f"One winter day, it snowed, and {h.name} was very excited.")]
    yield [
        s.pick(f'"Snow!" {h.he} shouted, and ran outside.', f"{h.He} put on {h.his} warm coat and ran outside."),
        s.pick(f"{h.He} tried to make a snowman, but the ball of snow was too heavy.", f"{h.He} rolled a big ball of snow, but {h.he} could not lift it."),
        s.meets(),
        s.pick(f'"Together we are strong," said {f.name}.', f'"Let me help you lift it," said {f.the}.'),
        s.pick("They pushed and pulled, and soon the snowman was tall.", "They worked all morning, and the snowman grew and grew."),
    ]
    yield [
        s.pick("They gave him a carrot for a nose and two stones for eyes.", "He got two stones for eyes and a big smile."),
        s.pick(f"{h.name} put {h.his} {ct} on him.", f"At the end, {f.name} gave the snowman {article(ct)}."),
        s.pick('"He looks very fine!" they laughed.', f'"He is the best snowman ever," said {h.name}.'),
        s.pick("Then they went inside and drank hot milk.", f"They danced around him until it was dark."),
        s.friends(),
    ]


def baby(s):
    h, f = s.hero, s.helper
    where = s.rng.choice(s.spots)
    s.ask(f"Who was lost?", f"{f.name}, a baby {f.kind}, was lost.")
    s.ask(f"Who was {f.name}?", f"{f.name} was a baby {f.kind}.")
    s.ask(f"Where did {h.name} find {f.name}?", f"{h.name} found {f.name} {where}.")
    s.feels("happy", f"{f.name} was with {f.his} mother again")
    yield [s.opening(), s.pick(f"{s.day()}, {h.name} heard a small cry.", f"{s.day()}, {h.name} was out for a walk when {h.he} heard someone cry.")]
    yield [
        s.pick(f"{cap(where)}, {h.he} found a baby {f.kind}.", f"{h.He} looked around and found a baby {f.kind} {where}."),
        s.pick(f'"Who are you, and why do you cry?" asked {h.name}.', f'"What is wrong, little one?" asked {h.name}.'),
        s.pick(f'"I am {f.name}, and I lost my mother," said the baby {f.kind}.', f'"My name is {f.name}. I cannot find my mother," said the baby {f.kind}.'),
        s.pick(f'"Do not cry. We will find her," said {h.name}.', f'"Come with me. I will help you," said {h.name}.'),
        s.pick(f"They asked everyone they met.", f"They walked all over the {s.place} and called her name."),
    ]
    yield [
        s.pick("At last, they heard a voice they knew.", f"Then {f.name} saw someone far away."),
        s.pick(f'"{f.name}, my dear! There you are!" cried {f.his} mother.', f"It was {f.his} mother, and she ran to them."),
        s.pick(f'"Thank you for helping my little one," she said to {h.name}.', f'"You have a good heart, {h.name}," said the mother.'),
        s.pick(f"{h.name} waved until they were out of sight.", f"{h.name} was so happy for them."),
        s.pick(f"From that day on, {f.name} came to visit every week.", f"{f.name} never forgot {h.name}.", f"That night, {h.name} slept well and dreamed of {f.name}."),
    ]


# Plot: its teller, the things it can be about, and what a user may call it.
PLOTS = {
    "lost": (lost, OBJECTS, ["something that was lost", "losing something"]),
    "stuck": (stuck, IN_TREES, ["a tall tree", "the wind"]),
    "lonely": (lonely, [], ["friendship", "making a new friend", "being lonely"]),
    "sharing": (sharing, [], ["sharing", "being hungry"]),
    "brave": (brave, [], ["being brave", "being afraid"]),
    "learning": (learning, [], ["learning something new", "never giving up"]),
    "broken": (broken, BREAKABLE, ["telling the truth", "being honest"]),
    "found": (found, OBJECTS, ["being kind", "finding something"]),
    "storm": (storm, [], ["a storm", "the rain"]),
    "birthday": (birthday, OBJECTS, ["a birthday", "a surprise"]),
    "race": (race, [], ["a race", "being proud"]),
    "sleepless": (sleepless, [], ["the moon", "a long night", "going to sleep"]),
    "treasure": (treasure, [], ["a treasure", "an old map", "an adventure"]),
    "ill": (ill, ["pillow", "balloon", "book", "blanket", "doll", "drum", "flute", "lantern", "bell", "clock"], ["being ill", "helping a friend"]),
    "snow": (snow, ["hat", "scarf", "bucket", "crown"], ["snow", "a snowman", "winter"]),
    "baby": (baby, [], ["a lost baby", "a mother"]),
    "seed": (seed, [], ["a seed", "a flower", "being patient"]),
}

# --- chat --------------------------------------------------------------------

UNKNOWN = ("dragon wizard robot spaceship pirate dinosaur princess king queen knight unicorn train car plane "
           "computer doctor teacher whale shark snake crocodile kangaroo camel rocket planet ghost witch fairy monster "
           "ninja football phone city desert volcano ocean camera guitar piano pizza banana").split()
LEAD_INS = ["Sure!", "Of course!", "Here is a story for you.", "Yes, I can.", "Gladly!"]


def story_request(rng):
    """A question for a story and the choices it makes for the story."""
    want = {}
    shape = rng.random()
    place_words = lambda: f"{PLACES[want['place']][0]} the {want['place']}"
    adjective = rng.choice(["", "", "", "little", "small", "brave", "brave little", "curious", "shy"])
    if adjective:
        want["adjective"] = adjective
        adjective += " "
    if shape < 0.10:
        topic = None
    elif shape < 0.40:
        want["hero"] = rng.choice(ANIMALS + ["girl", "boy"] * 3)
        topic = article(adjective + want["hero"])
        if rng.random() < (0.6 if want["hero"] in CHILDREN else 0.25):
            want["name"] = rng.choice(CHILDREN.get(want["hero"], GIRLS + BOYS))
            topic += f" {rng.choice(['named', 'called'])} {want['name']}"
        elif rng.random() < 0.2:
            want["place"] = rng.choice(list(PLACES))
            topic += " " + place_words()
    elif shape < 0.55:
        want["thing"] = rng.choice(OBJECTS)
        topic = article(want["thing"])
        if rng.random() < 0.5:
            want["colour"] = rng.choice(COLOURS)
            topic = article(f"{want['colour']} {want['thing']}")
    elif shape < 0.67:
        want["hero"], want["helper"] = rng.sample(ANIMALS + ["girl", "boy"], 2)
        topic = f"{article(adjective + want['hero'])} and {article(want['helper'])}"
    elif shape < 0.77:
        want["hero"], want["thing"] = rng.choice(ANIMALS + ["girl", "boy"]), rng.choice(OBJECTS)
        topic = f"{article(adjective + want['hero'])} and {article(want['thing'])}"
        if rng.random() < 0.3:
            want["colour"] = rng.choice(COLOURS)
            topic = f"{article(adjective + want['hero'])} and {article(want['colour'] + ' ' + want['thing'])}"
    elif shape < 0.80:
        want["name"] = topic = rng.choice(GIRLS + BOYS)
    elif shape < 0.86:
        want["place"] = rng.choice(list(PLACES))
        topic = f"the {want['place']}"
    elif shape < 0.95:
        want["plot"] = rng.choice(list(PLOTS))
        topic = rng.choice(PLOTS[want["plot"]][2])
    else:
        return unknown_story_request(rng)
    if topic is None:
        question = rng.choice(["Tell me a story.", "Please tell me a story.", "Can you tell me a story?", "Tell me a short story.", "I want to hear a story.", "Tell me another story.", "Write a story."])
    else:
        question = rng.choice([
            "Tell me a story about {}.", "Tell me a story about {}.", "Tell me a story about {}.", "Please tell me a story about {}.", "Can you tell me a story about {}?",
            "Write a story about {}.", "Write a short story about {}.", "I want to hear a story about {}.",
            "Tell me about {}.", "Do you know a story about {}?", "A story about {}, please.", "Could you write me a little story about {}?",
        ]).format(topic)
    return question, want, [rng.choice(LEAD_INS)] if rng.random() < 0.12 else []


def unknown_story_request(rng):
    word = rng.choice(UNKNOWN) if rng.random() < 0.7 else "".join(rng.choice("bcdfgklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(2, 3)))
    question = rng.choice(["Tell me a story about {}.", "Write a story about {}.", "Can you tell me a story about {}?"]).format(article(word))
    return question, {}, ["I do not know a story about that, but I know this one."]


SOUNDS = {"cow": "moo", "dog": "woof", "cat": "meow", "duck": "quack", "sheep": "baa", "pig": "oink", "horse": "neigh", "hen": "cluck", "frog": "ribbit", "owl": "hoot", "lion": "roar", "mouse": "squeak", "bee": "buzz", "bird": "tweet"}
HOMES = {"fish": "in the water", "bird": "in a nest", "bee": "in a hive", "dog": "in a house with people", "cow": "on a farm", "fox": "in a den", "rabbit": "in a burrow", "bear": "in a cave", "frog": "by a pond", "owl": "in a hollow tree", "horse": "in a stable", "spider": "in a web", "pig": "on a farm", "squirrel": "in a tree", "mouse": "in a small hole", "duck": "by a pond"}
COLOUR_OF = {"the sky": "blue", "grass": "green", "snow": "white", "the sun": "yellow", "a banana": "yellow", "a tomato": "red", "a carrot": "orange", "blood": "red", "milk": "white", "coal": "black", "a leaf": "green", "chocolate": "brown", "a lemon": "yellow", "a frog": "green", "the night": "black", "a strawberry": "red", "a cloud": "white", "the sea": "blue", "a pig": "pink", "a bear": "brown"}
EATS = {"cow": "grass", "rabbit": "carrots", "cat": "fish", "dog": "bones", "mouse": "cheese", "monkey": "bananas", "squirrel": "nuts", "horse": "hay", "bear": "honey", "hen": "seeds", "frog": "flies", "sheep": "grass"}
BABIES = {"dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "duck": "duckling", "hen": "chick", "pig": "piglet", "horse": "foal", "goat": "kid", "bear": "cub", "lion": "cub", "fox": "cub"}
LEGS = {"dog": "four", "cat": "four", "bird": "two", "cow": "four", "duck": "two", "spider": "eight", "hen": "two", "horse": "four", "fish": "no", "snake": "no", "bee": "six", "pig": "four", "boy": "two", "girl": "two", "owl": "two", "frog": "four"}
OPPOSITES = [tuple(p.split("-")) for p in "hot-cold big-small up-down day-night happy-sad fast-slow old-young wet-dry hard-soft open-closed full-empty light-dark good-bad tall-short left-right in-out black-white loud-quiet clean-dirty early-late rich-poor strong-weak yes-no first-last thick-thin".split()]
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
NUMBERS = "zero one two three four five six seven eight nine ten".split()

WHO_ARE_YOU = ["Who are you?", "What are you?", "What is your name?", "Are you a robot?", "Are you a person?", "Tell me about yourself.", "Who made you?", "Are you a big model?"]
CAN_DO = ["What can you do?", "Help me.", "How can you help me?", "What do you know?", "Can you help me?", "Help"]
I_AM = "I am the tiny demonstration model of twinfer."
CAN = "I can tell little stories and answer a few simple questions."
SORRY = f"I am only a small model. {CAN}"

OTHER = [
    "What is the capital of {x}?", "Who is the president of {x}?", "Write a program that sorts {x}.", "How do I cook {x}?",
    "Explain {x} to me.", "Translate this into French: {x}", "What is the weather in {x}?", "Who won the game in {x}?", "How far is {x}?",
    "What is the meaning of {x}?", "Write a poem about {x}.", "How old is {x}?", "What year did {x} begin?", "Give me a list of {x}.",
    "Why is {x} so important?", "Who invented {x}?", "What do you think about {x}?", "Is {x} good for me?", "Fix this code: {x}", "How does {x} work?",
    "Summarize {x}.", "What time is it in {x}?", "Write an email about {x}.", "When was {x} born?", "Can you play {x}?", "Define {x}.", "{x}", "{x}?", "I need {x} now.",
]
TOPICS = ("France London Germany Paris America China Einstein Napoleon Python Rust Java physics history money politics music gravity "
          "electricity quantum mechanics chemistry stocks taxes football tennis rice pasta medicine the internet the economy a list of numbers "
          "machine learning the universe my computer the government the war coffee evolution a computer an engine love life philosophy").split()


def random_text(rng):
    shape = rng.random()
    if shape < 0.6:
        return " ".join(rng.choice(TOPICS) for _ in range(rng.randint(1, 2)))
    if shape < 0.8:
        return " ".join("".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 8))) for _ in range(rng.randint(1, 4)))
    return "".join(chr(rng.randint(33, 126)) for _ in range(rng.randint(2, 12)))


def simple_question(rng):
    """One of the few kinds of question the model can answer, with its answer."""
    kind = rng.choice(["sound", "home", "colour", "eat", "baby", "legs", "opposite", "opposite", "opposite", "opposite", *["sum"] * 8, "day", "count", "count", "count", "after", "who", "who", "can", "hello", "how", "thanks", "bye", "other", "other", "other"])
    pick = lambda *a: rng.choice(a)
    if kind == "sound":
        a, sound = rng.choice(list(SOUNDS.items()))
        return pick(f"What does {article(a)} say?", f"What sound does {article(a)} make?", f"What does the {a} say?"), f"{cap(article(a))} says {sound}."
    if kind == "home":
        a, home = rng.choice(list(HOMES.items()))
        return pick(f"Where does {article(a)} live?", f"Where does the {a} live?", f"Where do I find {article(a)}?"), f"{cap(article(a))} lives {home}."
    if kind == "colour":
        a, colour = rng.choice(list(COLOUR_OF.items()))
        return pick(f"What colour is {a}?", f"Which colour is {a}?"), f"{cap(a)} is {colour}."
    if kind == "eat":
        a, food = rng.choice(list(EATS.items()))
        return pick(f"What does {article(a)} eat?", f"What does {article(a)} like to eat?", f"What does the {a} eat?"), f"{cap(article(a))} likes to eat {food}."
    if kind == "baby":
        a, baby = rng.choice(list(BABIES.items()))
        return pick(f"What is a baby {a} called?", f"What do you call a baby {a}?"), f"A baby {a} is called {article(baby)}."
    if kind == "legs":
        a, n = rng.choice(list(LEGS.items()))
        return pick(f"How many legs does {article(a)} have?", f"How many legs has {article(a)}?"), f"{cap(article(a))} has {n} legs."
    if kind == "opposite":
        a, b = rng.choice(OPPOSITES)
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
        return pick(f"What is the opposite of {a}?", f"What is the opposite of {a}?", f"Tell me the opposite of {a}.", f"Opposite of {a}?"), f"The opposite of {a} is {b}."
    if kind == "sum":
        a, b = rng.randint(0, 9), rng.randint(0, 9)
        x, y = (NUMBERS[a], NUMBERS[b]) if rng.random() < 0.12 else (a, b)
        return pick(f"What is {x} + {y}?", f"What is {x} plus {y}?", f"How much is {x} plus {y}?", f"{x} + {y}", f"{x} + {y} = ?"), f"{a} plus {b} is {a + b}."
    if kind == "day":
        i = rng.randint(0, 6)
        return pick(f"What day comes after {DAYS[i]}?", f"Which day comes after {DAYS[i]}?"), f"{DAYS[(i + 1) % 7]} comes after {DAYS[i]}."
    if kind == "count":
        n = rng.randint(3, 10)
        return pick(f"Count to {n}.", f"Count to {NUMBERS[n]}.", f"Can you count to {NUMBERS[n]}?", f"Please count to {n}."), ", ".join(str(i) for i in range(1, n + 1)) + "."
    if kind == "after":
        n = rng.randint(0, 9)
        return pick(f"What number comes after {n}?", f"What comes after {NUMBERS[n]}?", f"What comes after {n}?"), f"After {n} comes {n + 1}."
    if kind == "who":
        return rng.choice(WHO_ARE_YOU), pick(f"{I_AM} {CAN}", f"{I_AM} {CAN}", f"{I_AM} I was trained on made-up stories. {CAN}")
    if kind == "can":
        return rng.choice(CAN_DO), pick(CAN, f"{CAN} Ask me for a story about a fox!", f"{CAN} Ask me what a cow says!")
    if kind == "hello":
        return pick("Hello!", "Hi!", "Hello", "Hi there!", "Good morning!", "Hey!", "hi", "hello", "Hello there!"), pick("Hello! Shall I tell you a story?", "Hello! What would you like to hear?", "Hi! I can tell you a story.")
    if kind == "how":
        return pick("How are you?", "How are you today?", "How do you do?", "How are you doing?"), pick("I am fine, thank you! Shall I tell you a story?", "I am very well, thank you!")
    if kind == "thanks":
        return pick("Thank you!", "Thanks!", "Thank you.", "That was a nice story.", "I like it.", "Great!", "Very good!"), pick("You are welcome!", "I am glad you like it!")
    if kind == "bye":
        return pick("Goodbye!", "Bye!", "Good night!", "See you!"), pick("Goodbye! Come back soon!", "Goodbye! It was nice to talk to you.")
    return rng.choice(OTHER).format(x=random_text(rng)), pick(SORRY, SORRY, f"I do not know that. {SORRY}", f"I am sorry, I do not know that. {SORRY}")


def name_turn(rng, known):
    """The user's own name, remembered; or names said back. Returns question, answer, the name known then."""
    if known and rng.random() < 0.5:
        return rng.choice(["What is my name?", "Do you know my name?", "Who am I?", "Say my name."]), f"Your name is {known}.", known
    a, b, c = rng.sample(GIRLS + BOYS, 3)
    if rng.random() < 0.5:
        question = rng.choice(["My name is {}.", "I am {}.", "Hello, I am {}.", "Hi, my name is {}!", "I am called {}.", "Call me {}."]).format(a)
        return question, rng.choice(["Hello, {}! Shall I tell you a story?", "Nice to meet you, {}!", "Hi, {}!", "Hello, {}!"]).format(a), a
    said = rng.choice([a, a, f"{a} and {b}", f"{a}, {b} and {c}"])
    return rng.choice(["Say {}.", "Please say {}.", "Can you say {}?"]).format(said), f"{said}.", known


SYSTEMS = ["You are a helpful assistant.", "You tell short stories for children.", "You are the demonstration model of twinfer.", "You are a friendly storyteller.", "Answer in short sentences.", "Be kind and helpful."]


def chat(rng, story_share, budget, name_share=0.1):
    """Turns of a chat as (role, text). `budget` bounds the words, so a chat fits the context."""
    turns = [("system", rng.choice(SYSTEMS))] if rng.random() < 0.25 else []
    words, story, known = 0, None, None
    wanted = rng.choice([1, 2, 3, 4, 5, 6, 8])
    for _ in range(wanted):
        draw = rng.random()
        if story is not None and draw < 0.6:
            question, answer = rng.choice(story.facts)
        elif story is None and draw < 0.01:
            question, answer = rng.choice(["What was the fox called?", "Who helped Tom?", "Where did the story happen?", "How did Lily feel at the end?"]), "I have not told you a story yet. Shall I tell you one?"
        elif rng.random() < story_share:
            if words + 170 > budget:
                break
            question, want, lead = story_request(rng)
            story = Story(rng, **want)
            answer = " ".join(lead + [story.text])
        elif rng.random() < name_share:
            question, answer, known = name_turn(rng, known)
        else:
            question, answer = simple_question(rng)
        if rng.random() < 0.1:  # people type carelessly
            question = question.lower()
        if rng.random() < 0.1:
            question = question.rstrip(".?!")
        if rng.random() < 0.2:
            question = question.replace("colour", "color")
        turns += [("user", question), ("assistant", answer)]
        words += len(question.split()) + len(answer.split()) + 10
        if words > budget:
            break
    return turns


def opening_only(rng):
    """A request and the story as far as its topic shows, left open: the same lesson as a whole story in a third of the tokens."""
    needed, want = rng.choice(["place", "place", "thing", "colour", "helper", "plot"]), {}
    while needed not in want:
        question, want, lead = story_request(rng)
    story = Story(rng, **want)
    shown = story.paragraphs[:2] if "helper" in want or "plot" in want else story.paragraphs[:1]
    if "thing" in want and want["thing"] not in shown[0]:
        shown = story.paragraphs
    return [("user", question), ("unfinished", " ".join(lead + ["\n\n".join(shown)]))]


def documents(seed, budget=190, names=0.0, openings=0.0, questions=0.0):
    """An endless stream of documents: a string is a raw story, a list is a chat.

    The shares are of extra documents, each dense in what the mixture teaches slowly:
    to say a name again, to keep to the topic asked for, sums and opposites.
    """
    rng = random.Random(seed)
    while True:
        extra = rng.random()
        if extra < names:
            yield chat(rng, 0.0, budget, name_share=1.0)
            continue
        if extra < names + openings:
            yield opening_only(rng)
            continue
        if extra < names + openings + questions:
            yield chat(rng, 0.0, budget, name_share=0.0)
            continue
        draw = rng.random()
        if draw < 0.38:
            yield Story(rng).text
        elif draw < 0.78:
            turns = chat(rng, 0.9, budget)
            if turns[-1][0] == "assistant":
                yield turns
        else:
            turns = chat(rng, 0.0, budget)
            if turns[-1][0] == "assistant":
                yield turns


if __name__ == "__main__":
    count, seed_ = (int(a) for a in (sys.argv[1:] + ["10", "0"][len(sys.argv) - 1:]))
    for _, document in zip(range(count), documents(seed_)):
        if isinstance(document, str):
            print(document)
        else:
            print("\n".join(f"[{role}] {text}" for role, text in document))
        print("-" * 60)
