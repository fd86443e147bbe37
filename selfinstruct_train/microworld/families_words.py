"""Families of the microworld on words, grammar, everyday facts and Spanish."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from selfinstruct_train.microworld import lexicon as lx
from selfinstruct_train.microworld.world import Family, Slots

_Answers = Callable[[Slots, str], tuple[str, ...]]
_Sampler = Callable[[random.Random, Slots], str]
_Reply = Callable[..., tuple[str, ...]]


def _w(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split("|"))


def _say(*templates: str) -> Callable[[random.Random, Slots, str, str], str]:
    def sentence(rng: random.Random, slots: Slots, text: str, answer: str) -> str:
        cap = lx.capitalized
        words = {**slots, "i": text, "a": answer, "I": cap(text), "A": cap(answer)}
        return cap(rng.choice(templates).format(**words))

    return sentence


def _frames(*frames: tuple[str, Sequence[Sequence[str]], _Reply]) -> dict[str, Any]:
    """Input sampler and oracle of inputs that fill one of some equally frequent templates."""
    readers = []
    for template, lists, reply in frames:
        alternatives = ["(" + "|".join(map(re.escape, words)) + ")" for words in lists]
        readers.append((re.compile(template.format(*alternatives)), reply))

    def answers(slots: Slots, text: str) -> tuple[str, ...]:
        for pattern, reply in readers:
            if match := pattern.fullmatch(text.strip()):
                return reply(slots, *match.groups())
        return ()

    def sample(rng: random.Random, slots: Slots) -> str:
        template, lists, _ = rng.choice(frames)
        while True:
            words = [rng.choice(options) for options in lists]
            if len(set(words)) == len(words):
                return template.format(*words)

    return {"answers": answers, "sample_input": sample}


def _pick(vocabulary: Sequence[str], fits: Callable[[Slots, str], bool]) -> dict[str, Any]:
    """Input sampler and oracle of lists of three words, one of which fits the instruction."""
    known = frozenset(vocabulary)

    def answers(slots: Slots, text: str) -> tuple[str, ...]:
        words = lx.items(text)
        if len(words) != 3 or not known.issuperset(words):
            return ()
        return tuple(dict.fromkeys(word for word in words if fits(slots, word)))

    def sample(rng: random.Random, slots: Slots) -> str:
        words = [rng.choice([word for word in vocabulary if fits(slots, word)])]
        words += rng.sample([word for word in vocabulary if not fits(slots, word)], 2)
        rng.shuffle(words)
        return ", ".join(words)

    return {"answers": answers, "sample_input": sample}


def _word(vocabulary: Sequence[str], sample: _Sampler, reply: _Reply) -> dict[str, Any]:
    def answers(slots: Slots, text: str) -> tuple[str, ...]:
        return reply(slots, text.strip()) if text.strip() in vocabulary else ()

    return {"answers": answers, "sample_input": sample}


def _no_input(reply: Callable[[Slots], str]) -> dict[str, Any]:
    return {"answers": lambda slots, text: () if text.strip() else (reply(slots),)}


def _both_ways(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    return {**dict(pairs), **{b: a for a, b in pairs}}


_OPPOSITE = _both_ways(lx.OPPOSITES)
_ADJECTIVES = tuple(w for w in _OPPOSITE if w not in ("early", "late", "near", "far"))
_SAME = _both_ways(
    [p for p in lx.SYNONYMS if p[0] not in ("begin", "end", "shut", "shout", "jump")]
)
_NOUNS = lx.ANIMALS + lx.THINGS
_VOWEL_NOUNS = tuple(noun for noun in _NOUNS if noun[0] in "aeiou")
_PLURAL = {lx.plural(noun): noun for noun in _NOUNS}
# Fruits and vegetables are food too, so food would not be a class of its own.
_CATEGORIES = {kind: words for kind, words in lx.CATEGORIES.items() if kind != "food"}
_KIND = {word: kind for kind, words in _CATEGORIES.items() for word in words}
_MEMBERS = tuple(_KIND)
_ARTICLED = {lx.article(kind): kind for kind in _CATEGORIES}
_COUNTRY = {city: country for country, city in lx.CAPITALS.items()}
_COUNTRIES, _CITIES = tuple(lx.CAPITALS), tuple(_COUNTRY)
_NUMBERS = lx.NUMBER_WORDS[2:]
_DIGITS = tuple(str(n) for n in range(2, 21))
_YES_NO = ("yes", "no")

_COLOUR = {
    "banana": "yellow",
    "lemon": "yellow",
    "butter": "yellow",
    "sun": "yellow",
    "cherry": "red",
    "radish": "red",
    "carrot": "orange",
    "pumpkin": "orange",
    "milk": "white",
    "rice": "white",
    "snow": "white",
    "frog": "green",
    "pea": "green",
    "cabbage": "green",
    "grass": "green",
    "pig": "pink",
    "cocoa": "brown",
    "bear": "brown",
    "potato": "brown",
    "sky": "blue",
    "sea": "blue",
    "coal": "black",
}
_YOUNG = {
    "cat": "kitten",
    "dog": "puppy",
    "cow": "calf",
    "horse": "foal",
    "pig": "piglet",
    "goat": "kid",
    "lion": "cub",
    "tiger": "cub",
    "bear": "cub",
    "duck": "duckling",
    "frog": "tadpole",
}
_DEEDS = {
    "baker": "bakes bread",
    "doctor": "helps sick people",
    "farmer": "grows food",
    "teacher": "teaches children",
    "pilot": "flies planes",
    "painter": "paints houses",
    "singer": "sings songs",
    "driver": "drives cars",
    "cook": "makes soup",
}
_FLYING = ("duck", "owl", "eagle", "bee", "plane", "kite", "balloon")
_GROUNDED = (
    "cat",
    "dog",
    "horse",
    "cow",
    "pig",
    "goat",
    "lion",
    "tiger",
    "bear",
    "wolf",
    "frog",
    "snake",
    "shark",
    "whale",
    "spider",
    "car",
    "bus",
    "train",
    "truck",
    "table",
    "chair",
)
_SEASONS = ("winter", "spring", "summer", "autumn")
_MONTHS_OF = {
    s: tuple(lx.MONTHS[(3 * k + m - 1) % 12] for m in range(3)) for k, s in enumerate(_SEASONS)
}
_HABITS = ("works", "sings", "rests", "cooks", "travels")
_INTRANSITIVE = ("walk", "play", "jump", "cook", "eat", "drink", "sing", "run", "help", "write")
_TRANSITIVE = tuple(verb for verb in lx.VERBS if verb not in _INTRANSITIVE)
_STEPS = {
    "1 day after": 1,
    "2 days after": 2,
    "3 days after": 3,
    "1 day before": -1,
    "2 days before": -2,
}

# Some words are verbs, nouns and adjectives at once: only the clear ones may be asked for.
_CLASS = {
    **dict.fromkeys((*lx.FURNITURE, *lx.FRUITS, *lx.DRINKS[1:4], *lx.ANIMALS[:8]), "noun"),
    **dict.fromkeys(
        ("eat", "give", "take", "see", "find", "make", "write", "buy", "sing", "sell"), "verb"
    ),
    **dict.fromkeys(
        (
            "big",
            "small",
            "old",
            "new",
            "happy",
            "sad",
            "heavy",
            "tall",
            "strong",
            "weak",
            "loud",
            "wide",
            "hot",
            "soft",
            "rich",
            "poor",
        ),
        "adjective",
    ),
}

_FEMININE = ("cow", "milk", "house", "table", "hand", "moon", "school", "apple")
_MASCULINE = ("cat", "dog", "horse", "bread", "book", "sun", "friend", "fish")
_ES_NOUNS = _FEMININE + _MASCULINE
_ES_ADJECTIVES = ("red", "blue", "green", "black", "white", "big", "small")
_ES = {f"the {n}": ("la " if n in _FEMININE else "el ") + lx.SPANISH[n] for n in _ES_NOUNS}
_EN = {spanish: english for english, spanish in _ES.items()}


def _spanish(adjective: str, noun: str) -> str:
    word = lx.SPANISH[adjective]
    if noun in _FEMININE and word.endswith("o"):
        word = word[:-1] + "a"
    return f"{_ES[f'the {noun}']} {word}"


_ES_PHRASES = {_spanish(a, n): f"the {a} {n}" for a in _ES_ADJECTIVES for n in _ES_NOUNS}


def _opposites(word: str) -> tuple[str, ...]:
    first = _OPPOSITE[word]
    also = {"short": ("long",), "light": ("dark",), "dark": ("light",), "old": ("young",)}.get(
        word, ()
    )
    return (first, *([_SAME[first]] if first in _SAME else []), *also)


def _degree(adjective: str, ending: str) -> str:
    irregular = {"gooder": "better", "goodest": "best", "bader": "worse", "badest": "worst"}
    if adjective + ending in irregular:
        return irregular[adjective + ending]
    if adjective in ("big", "hot", "sad", "wet"):
        return adjective + adjective[-1] + ending
    if adjective.endswith("y"):
        return adjective[:-1] + "i" + ending
    return adjective.removesuffix("e") + ending


_GRADED = tuple(word for word in _ADJECTIVES if word not in ("open", "closed"))
_AGELESS = tuple(word for word in _GRADED if word not in ("old", "new", "big", "tall"))


def _sample_class(rng: random.Random, slots: Slots) -> str:
    return rng.choice(_CATEGORIES[rng.choice((slots["x"], slots["y"], slots["z"]))])


def _sample_is_a(rng: random.Random, slots: Slots) -> str:
    kind = _ARTICLED[slots["kind"]]
    if rng.random() < 0.5:
        return rng.choice([word for word in _CATEGORIES[kind]])
    return rng.choice([word for word in _MEMBERS if _KIND[word] != kind])


def _sample_analogy(rng: random.Random, slots: Slots) -> str:
    a, c = rng.sample(tuple(_OPPOSITE), 2)
    return f"{a} is to {_OPPOSITE[a]} as {c} is to"


def _sample_articles(rng: random.Random, slots: Slots) -> str:
    vowel, other = rng.choice(_VOWEL_NOUNS), rng.choice(_NOUNS)
    if vowel == other:
        return _sample_articles(rng, slots)
    return " and ".join(rng.sample((vowel, other), 2))


def _sample_cities(rng: random.Random, slots: Slots) -> str:
    capital = lx.CAPITALS[slots["country"]]
    other = rng.choice([city for city in _CITIES if city != capital])
    return " or ".join(rng.sample((capital, other), 2))


def _day(name: str, steps: str, day: str) -> str:
    return lx.DAYS[(lx.DAYS.index(day) + _STEPS[steps]) % 7]


def _month(side: str, month: str) -> str:
    return lx.MONTHS[(lx.MONTHS.index(month) + (1 if side == "after" else -1)) % 12]


FAMILIES: tuple[Family, ...] = (
    Family(
        "antonym_phrase",
        "words",
        _w("""
        Replace the adjective with its opposite. | What is the contrary of this description? |
        Given a short phrase, write it again with the describing word reversed in meaning. | Say
        the opposite of the phrase, keeping the noun. | Swap one word so that the phrase means the
        reverse. | How would you describe the same thing if the quality were opposite? | Use an
        antonym here and leave the other words alone. | Turn hot into cold, big into small, and so
        on. | Change the describing word to its antonym and repeat the noun. | Which phrase says
        the contrary about that noun?"""),
        sentences=_say("The opposite of {i} is {a}.", "{I} is not {a}.", "Not {i} but {a}."),
        weight=1.5,
        **_frames(
            (
                "the {} {}",
                (_ADJECTIVES, _NOUNS),
                lambda s, adj, noun: tuple(f"the {word} {noun}" for word in _opposites(adj)),
            )
        ),
    ),
    Family(
        "synonym_phrase",
        "words",
        _w("""
        Say the same thing with a synonym. | Replace the last word by another one of equal meaning.
        | How else could you put this about the person? | Rewrite the sentence so that its
        adjective changes but its meaning stays. | Find a different adjective that means the same,
        and use it in the sentence. | Express that idea in other words. | Which sentence has an
        equal meaning? | Given a statement about someone, restate it using a similar word. | Use a
        synonym for the adjective and repeat the rest. | Put the statement another way without
        changing its sense."""),
        sentences=_say("{I} means that {a}.", "If {i}, then {a}.", "{I}: in other words, {a}."),
        **_frames(
            (
                "{} is {}",
                (lx.NAMES, tuple(_SAME)),
                lambda s, name, adj: (f"{name} is {_SAME[adj]}",),
            )
        ),
    ),
    Family(
        "category_of",
        "words",
        _w("""
        Is this word a kind of {x}, {y} or {z}? | Sort the word into one of the groups {x}, {y},
        {z}. | Choose the category that fits: {x}, {y} or {z}. | Classify it as {x} or {y} or {z}.
        | There are three boxes named {x}, {y} and {z}; where does the thing belong? | Label the
        given item with {x}, {y} or {z}. | Decide between {x}, {y} and {z} for what is written
        below. | From the types {x}, {y} and {z}, pick the right one for this. | Which of {x}, {y}
        and {z} describes the word? | Tell whether we have {x}, {y} or {z} here."""),
        slots=dict.fromkeys(("x", "y", "z"), tuple(_CATEGORIES)),
        distinct=(("x", "y"), ("x", "z"), ("y", "z")),
        labels=lambda s: (s["x"], s["y"], s["z"]),
        weight=1.5,
        sentences=_say(
            "The word {i} belongs to the category {a}.", "{I} is in the group {a}.", "{I}: {a}."
        ),
        **_word(
            _MEMBERS,
            _sample_class,
            lambda s, word: (_KIND[word],) if _KIND[word] in s.values() else (),
        ),
    ),
    Family(
        "is_a_category",
        "words",
        _w("""
        Is this {kind}? Answer yes or no. | Say yes if the word names {kind}, otherwise no. | Would
        you call it {kind}, yes or no? | Check whether the given thing is {kind} and reply with yes
        or no. | Yes or no: does the word stand for {kind}? | True or not, that we have {kind}
        here? Write yes or no. | Answer with yes when you read {kind} and with no for everything
        else. | Tell me, yes or no, if {kind} is meant by the word below. | Do people think of this
        as {kind}? Reply yes or no. | Decide if the input counts as {kind}, using yes or no."""),
        slots={"kind": tuple(_ARTICLED)},
        labels=lambda s: _YES_NO,
        weight=1.5,
        sentences=lambda rng, s, i, a: (
            f"{lx.capitalized(i)} is {'' if a == 'yes' else 'not '}{s['kind']}."
        ),
        **_word(
            _MEMBERS,
            _sample_is_a,
            lambda s, word: ("yes" if _KIND[word] == _ARTICLED[s["kind"]] else "no",),
        ),
    ),
    Family(
        "find_member",
        "words",
        _w("""
        Find {kind} in the list. | Which of the three words is {kind}? | One of these names {kind};
        write that one down. | Look through the words and pick out {kind}. | Given three words,
        give the only one that is {kind}. | What here would you call {kind}? | Copy the word for
        {kind} from the input. | I need {kind}: choose it among the words below. | Among the items,
        search for {kind} and name it. | Select the entry which is {kind}."""),
        slots={"kind": tuple(_ARTICLED)},
        weight=1.5,
        sentences=_say("Among {i}, only {a} is {kind}.", "In {i} there is {kind}: {a}."),
        **_pick(_MEMBERS, lambda s, word: _KIND[word] == _ARTICLED[s["kind"]]),
    ),
    Family(
        "analogy",
        "words",
        _w("""
        Complete the analogy of opposites. | Finish the comparison with one word. | What word is
        missing at the end? | Think about how the first pair is related, then supply the last word.
        | Which word makes the second pair match the first? | Fill in the end of this word pair
        puzzle. | Given a pair of opposites, give the partner of the third word. | The sentence
        stops too soon; write the word that should follow. | Work out the relation between the
        words and end the sentence. | Solve the word analogy by naming its final term."""),
        weight=1.5,
        sentences=_say("{I} {a}.", "{I} {a}, its opposite."),
        **_frames(
            (
                "{} is to {} as {} is to",
                (tuple(_OPPOSITE),) * 3,
                lambda s, a, b, c: _opposites(c) if b in _opposites(a) else (),
            )
        )
        | {"sample_input": _sample_analogy},
    ),
    Family(
        "same_or_opposite",
        "words",
        _w("""
        Are the two people alike? Answer same or opposite. | Compare both adjectives and reply same
        or opposite. | Same or opposite: what are the describing words? | Write opposite if the
        qualities are contrary and same if they agree. | Do the two words mean the same or the
        opposite? | Given a statement about two people, label their qualities same or opposite. |
        Judge how the meanings relate, choosing between opposite and same. | Say same for synonyms,
        opposite for antonyms. | Tell whether the words used for the two people are opposite or
        same in meaning. | Is it a pair of same or opposite adjectives?"""),
        labels=lambda s: ("same", "opposite"),
        sentences=lambda rng, s, i, a: f"{i}: the two words mean the {a}.",
        weight=1.5,
        **_frames(
            *(
                ("{} is " + one + " and {} is " + two, (lx.NAMES, lx.NAMES), reply)
                for words, copies, reply in (
                    (_OPPOSITE, 1, lambda s, a, b: ("opposite",)),
                    (_SAME, 2, lambda s, a, b: ("same",)),
                )
                for one, two in words.items()
                for _ in range(copies)
            )
        ),
    ),
    Family(
        "plural_phrase",
        "grammar",
        _w("""
        Please make it {n} instead. | Write the noun after the number {n}, in the plural. | What do
        we call {n} of these? | Change one to {n} and fix the noun. | If there were {n} instead of
        one, how would you say it? | Put {n} in front and use the plural form. | Given a single
        thing, name a group of {n} such things. | Imagine having {n} of them and say what you have.
        | Count {n} of this thing in words. | Replace the word one by {n} so that the phrase is
        correct."""),
        slots={"n": lx.NUMBER_WORDS[2:11]},
        sentences=_say("{I}, {a}.", "First {i}, then {a}.", "Here is {i} and there are {a}."),
        **_frames(("one {}", (_NOUNS,), lambda s, noun: (f"{s['n']} {lx.plural(noun)}",))),
    ),
    Family(
        "past_tense",
        "grammar",
        _w("""
        Put the sentence in the past tense. | It happened yesterday: say it so. | Change the verb
        to its past form. | How would you tell this about last week? | Rewrite what they do now as
        something that is over. | Given a sentence about today, move it into the past. | Use the
        simple past for the verb. | What is the past of this sentence? | Tell it as a thing that
        was done long ago. | Turn the present into the past and keep all the other words."""),
        weight=1.5,
        sentences=_say("Today {i}, yesterday {a}.", "Yesterday {a}.", "Now {i}; last week {a}."),
        **_frames(
            (
                "{} {} near the {}",
                (("we", "they", "you"), _INTRANSITIVE, lx.PLACES),
                lambda s, who, verb, noun: (f"{who} {lx.VERBS[verb]} near the {noun}",),
            ),
            (
                "{} {} the {}",
                (("we", "they", "you"), _TRANSITIVE, lx.CLOTHES + lx.FURNITURE + lx.TOYS),
                lambda s, who, verb, noun: (f"{who} {lx.VERBS[verb]} the {noun}",),
            ),
        ),
    ),
    Family(
        "article_pair",
        "grammar",
        _w("""
        Put a or an before each noun. | Add the right articles to both words. | Which little word,
        a or an, goes with each of these? | Write the two nouns with their indefinite articles. |
        Complete the pair with a and an where they belong. | Insert a or an in front of the things
        named. | The articles are missing; give them back. | Given two bare nouns, say them as you
        would in a sentence, with a or an. | Supply every noun with its article, a or an. | How do
        these nouns look with a or an?"""),
        sentences=_say("I see {a}.", "There is {a} here.", "{A}."),
        **_frames(
            (
                "{} and {}",
                (_NOUNS, _NOUNS),
                lambda s, one, two: (f"{lx.article(one)} and {lx.article(two)}",),
            )
        )
        | {"sample_input": _sample_articles},
    ),
    Family(
        "comparative",
        "grammar",
        _w("""
        Use the comparative of the adjective. | Write the phrase with more of the quality. | What
        is the comparative form here? | Change tall to taller, good to better, and so forth. | Put
        the describing word in the form that we use before than. | Given an adjective and a noun,
        raise the adjective to its second degree. | Compare it with another one: which form of the
        adjective do you need? | Say that this one beats the other in that quality. | Replace the
        adjective by its comparative and keep the noun. | How does the phrase read when two things
        are compared?"""),
        weight=1.3,
        sentences=_say(
            "This is {i} but that is {a}.", "Not {i} but {a}.", "Here is {i} and there is {a}."
        ),
        **_frames(
            (
                "the {} {}",
                (_GRADED, _NOUNS),
                lambda s, adj, noun: (f"the {_degree(adj, 'er')} {noun}",),
            )
        ),
    ),
    Family(
        "superlative",
        "grammar",
        _w("""
        Use the superlative of the adjective. | Write the phrase with the most of that quality. |
        Change tall to tallest, good to best, and so on. | No other one has more of this quality:
        say so in a phrase. | What is the superlative form here? | Given a phrase, bring its
        describing word to the highest degree. | It is number one among all of them; which form of
        the adjective do you need? | Turn the describing word into the form ending in est, or its
        irregular form. | Replace the adjective by its superlative and keep the noun. | How would
        we name the winner in that quality?"""),
        weight=1.3,
        sentences=_say(
            "Of all of them, this is {a}.", "It is not just {i}, it is {a}.", "Here is {a}."
        ),
        **_frames(
            (
                "the {} {}",
                (_GRADED, _NOUNS),
                lambda s, adj, noun: (f"the {_degree(adj, 'est')} {noun}",),
            )
        ),
    ),
    Family(
        "pick_word_class",
        "grammar",
        _w("""
        Find the {kind} in the list. | Which of the three words is used as the {kind}? | One word
        here belongs to the class {kind}; write it. | Think of grammar and choose the {kind}. |
        What is the only {kind} below? | Given three words, copy the one that is the {kind}. | Pick
        out the word that a dictionary would call {kind}. | Name the {kind} among these. | Look at
        the parts of speech and give the {kind}. | Select from the words a single {kind}."""),
        slots={"kind": ("noun", "verb", "adjective")},
        weight=1.5,
        sentences=_say("Among {i}, the {kind} is {a}.", "The class of the word {a} is {kind}."),
        **_pick(tuple(_CLASS), lambda s, word: _CLASS[word] == s["kind"]),
    ),
    Family(
        "number_to_digits",
        "grammar",
        _w("""
        Write the number in digits. | Replace the number word with numerals. | How many are there?
        Use digits and repeat the noun. | Turn the spelled number into a numeral. | Given an amount
        in words, show it with digits. | What does the phrase look like with a numeral? | Shorten
        it by using digits for the number. | Express the count as digits, followed by the things. |
        Convert the word for the number and keep the noun. | Use 7 for seven, 12 for twelve, and so
        on."""),
        sentences=_say("{I} are {a}.", "{A} means {i}.", "{I}, or {a}."),
        **_frames(
            (
                "{} {}",
                (_NUMBERS, tuple(_PLURAL)),
                lambda s, n, noun: (f"{lx.NUMBER_WORDS.index(n)} {noun}",),
            )
        ),
    ),
    Family(
        "digits_to_number",
        "grammar",
        _w("""
        Spell out the number. | Write the amount in words. | Replace the digits with the word for
        that number. | How do you read this phrase aloud? | Given a numeral and a noun, put the
        numeral in letters. | No digits, please: use the number word. | What is the phrase without
        any digits? | Turn the numeral into a word, then repeat the things. | Express the count
        with a number word before the noun. | Use seven for 7, twelve for 12, and so forth."""),
        sentences=_say("{I} are {a}.", "{A} means {i}.", "{I}, in words {a}."),
        **_frames(
            (
                "{} {}",
                (_DIGITS, tuple(_PLURAL)),
                lambda s, n, noun: (f"{lx.NUMBER_WORDS[int(n)]} {noun}",),
            )
        ),
    ),
    Family(
        "capital_pair",
        "facts",
        _w("""
        State the capital of both: {one}, {two}. | What are the capital cities of {one} and {two}? |
        Which cities are the seats of government in {one} and in {two}? | Give first the capital of
        {one} and then that of {two}. | Tell me two capitals: {one} and {two}. | For {one} as well
        as {two}, write the capital, joined by and. | I am learning about {one} and {two}; what
        capitals should I know? | On your trip you see {one} and {two}: state both capitals. | Say
        which capitals belong to {one} and {two}. | Both {one} and {two} have a capital; write
        them."""),
        slots={"one": _COUNTRIES, "two": _COUNTRIES},
        distinct=(("one", "two"),),
        sentences=_say(
            "The capitals of {one} and {two} are {a}.", "{A} are the capitals of {one} and {two}."
        ),
        **_no_input(lambda s: f"{lx.CAPITALS[s['one']]} and {lx.CAPITALS[s['two']]}"),
    ),
    Family(
        "country_of_city",
        "facts",
        _w("""
        In which country does the person live? | Name the country of this city. | The city is a
        capital; of what country? | Someone lives in a capital: tell me the country. | Read where
        the person lives and give the country only. | What country must you visit to see them? |
        Given a sentence about a home, write the country that the city is in. | Find the land to
        which the city belongs. | Which country is home to this person? | Work out the country from
        the city."""),
        sentences=_say("{I}, so the country is {a}.", "{I}, in {a}.", "{I}, the capital of {a}."),
        **_frames(("{} lives in {}", (lx.NAMES, _CITIES), lambda s, name, city: (_COUNTRY[city],))),
    ),
    Family(
        "capital_choice",
        "facts",
        _w("""
        Which of the two cities is the capital of {country}? | Choose the capital of {country}. |
        One of these belongs to {country}; which? | Pick the city that is in {country}. | Just a
        single name is the main city of {country}: write that one. | Given two cities, find the one
        where {country} has its government. | You want to visit {country}; what city do you take
        from the two? | Between these cities, which one would you find in {country}? | Select the
        city of {country} from the pair. | Tell which name goes with {country} as its capital."""),
        slots={"country": _COUNTRIES},
        sentences=_say("{I}? The capital of {country} is {a}.", "The capital of {country} is {a}."),
        **_frames(
            (
                "{} or {}",
                (_CITIES, _CITIES),
                lambda s, one, two: (
                    (lx.CAPITALS[s["country"]],) if lx.CAPITALS[s["country"]] in (one, two) else ()
                ),
            )
        )
        | {"sample_input": _sample_cities},
    ),
    Family(
        "thing_colours",
        "facts",
        _w("""
        What colour is each of these? | Name the usual colours of the two things. | Write the
        colour of the first and then of the second. | Which colours do they normally have? |
        Replace both words by the colours they have in nature. | Given a pair of things, give a
        pair of colours, joined by and. | If you painted these, what two colours would you need? |
        Think of the things and say how they are coloured. | Tell me their typical colours in the
        same order. | Describe the pair only by colour."""),
        sentences=_say(
            "The colours of {i} are {a}.", "{I} are {a}.", "{A} are the colours of {i}."
        ),
        **_frames(
            (
                "{} and {}",
                (tuple(_COLOUR),) * 2,
                lambda s, one, two: (f"{_COLOUR[one]} and {_COLOUR[two]}",),
            )
        ),
    ),
    Family(
        "thing_of_colour",
        "facts",
        _w("""
        Which of these is usually {colour}? | Find the {colour} one in the list. | Pick the thing
        that is {colour} in nature. | One of the three has the colour {colour}; name it. | Given
        three things, write the only {colour} one. | What here would you paint {colour}? | Look for
        something {colour} among the words. | Choose whatever is normally {colour} and copy its
        name. | Select the item whose colour is {colour}. | Tell me what is {colour} below."""),
        slots={"colour": tuple(dict.fromkeys(_COLOUR.values()))},
        reserved=True,
        sentences=_say("Among {i}, only {a} is {colour}."),
        **_pick(tuple(_COLOUR), lambda s, word: _COLOUR[word] == s["colour"]),
    ),
    Family(
        "animal_young",
        "facts",
        _w("""
        What is the baby of this animal called? | Name the young one, keeping the adjective. |
        Replace the animal with its young. | Write the phrase about the child instead of the
        parent. | Make the animal a baby and say what you see. | Which word do we use when this
        animal is very young? | Given a grown animal, give the phrase for its little one. | Turn
        the parent into its baby, as cow becomes calf. | Say it for an animal that was just born. |
        How do you call the young of the animal, described in the same way?"""),
        sentences=_say("The young of {i} is {a}.", "{I} was once {a}.", "{A} will grow into {i}."),
        **_frames(
            (
                "the {} {}",
                (_AGELESS, tuple(_YOUNG)),
                lambda s, adj, animal: (
                    f"the {adj} {_YOUNG[animal]}",
                    *([f"the {adj} pup"] if animal == "dog" else ()),
                ),
            )
        ),
    ),
    Family(
        "job_name",
        "facts",
        _w("""
        What job does the person have? | Name the profession in one word. | Someone does this every
        day; which worker is it? | Given what a person does, write the job. | Guess the job from
        the work. | Who is it that does such things for a living, a baker, a pilot or what else? |
        Read about the work and say what the worker is called. | Find the word for a person with
        this task. | Which profession is described? | Tell me the name of the job that fits."""),
        sentences=_say(
            "{I}, like every {a}.", "{I}: the job is {a}.", "{I} and has the job of a {a}."
        ),
        **_frames(
            (
                "{} {}",
                (lx.NAMES, tuple(_DEEDS.values())),
                lambda s, name, deed: (
                    tuple(job for job, does in _DEEDS.items() if does == deed)
                    + (("nurse",) if deed == _DEEDS["doctor"] else ())
                ),
            )
        ),
    ),
    Family(
        "can_fly",
        "facts",
        _w("""
        Can it fly? Answer yes or no. | Say yes if this moves through the air, no if it cannot. |
        Would you see it up in the sky? Reply yes or no. | Yes or no: is flying possible for the
        thing named? | Decide whether it flies, and write yes or no. | Does this ever leave the
        ground for long, yes or no? | Answer yes for things that fly and no for those that stay
        down. | Given an animal or object, tell with yes or no if it can take off. | Tell me with
        yes or no about its power to fly. | Write no when it has no way to fly and yes when it
        has."""),
        labels=lambda s: _YES_NO,
        sentences=lambda rng, s, i, a: (
            f"{lx.capitalized(i)} {'can' if a == 'yes' else 'cannot'} fly."
        ),
        **_frames(
            ("the {} {}", (lx.COLOURS + _GRADED[:8], _FLYING), lambda s, adj, noun: ("yes",)),
            ("the {} {}", (lx.COLOURS + _GRADED[:8], _GROUNDED), lambda s, adj, noun: ("no",)),
        ),
    ),
    Family(
        "boy_or_girl",
        "facts",
        _w("""
        Is the person a boy or a girl? | Write boy or girl, going by the name. | Who owns the
        thing, a girl or a boy? | Look at the name and decide between girl and boy. | Whom does the
        sentence speak of, girl or boy? | Classify the owner as boy or girl. | Say girl for a
        female name and boy for a male one. | What would you call this child: boy or girl? | Tell
        from the name if we meet a girl or a boy. | Label the name that you read with boy or
        girl."""),
        labels=lambda s: ("boy", "girl"),
        sentences=lambda rng, s, i, a: f"{i}. {i.split()[0]} is a {a}.",
        **_frames(
            *(
                ("{} has a {} {}", (names, lx.COLOURS[:-1], lx.CLOTHES), reply)
                for names, reply in (
                    (lx.GIRLS, lambda s, *words: ("girl",)),
                    (lx.BOYS, lambda s, *words: ("boy",)),
                )
            )
        ),
    ),
    Family(
        "day_step",
        "facts",
        _w("""
        On which day does the person come? | Count the days and name the day of the visit. | Work
        out the weekday that is meant. | What day is it when the visitor arrives? | Given a visit
        told in days before or after, write its weekday. | Find the day of the week on which we
        will see them. | When do they come? Give only the weekday. | Move along the week and tell
        me the day you reach. | Name the weekday of this visit. | Step through the week to find the
        right day."""),
        weight=2.5,
        sentences=_say("{I}, that is on {a}.", "{I}, so on {a}.", "{I}: {a}."),
        **_frames(
            (
                "{} comes {} {}",
                (lx.NAMES, tuple(_STEPS), lx.DAYS),
                lambda s, name, steps, day: (_day(name, steps, day),),
            )
        ),
    ),
    Family(
        "month_step",
        "facts",
        _w("""
        Which month comes right {side} the one in the sentence? | Name the month just {side} that.
        | Find the month in the text and give its neighbour {side} it. | In the calendar, what
        stands directly {side} this month? | Write the month one step {side} the one you read. | If
        it were the month {side}, which would it be? | Given a sentence with a month, tell the
        month immediately {side} it. | Look at when it happens; then say the name of the month
        {side}. | What is the month {side} the given one? | Tell me the month that is one place
        {side} it."""),
        slots={"side": ("after", "before")},
        weight=1.5,
        sentences=_say("{I}. The month {side} is {a}.", "{I}, and the month {side} that is {a}."),
        **_frames(
            (
                "{} {} in {}",
                (lx.NAMES, _HABITS, lx.MONTHS),
                lambda s, name, habit, month: (_month(s["side"], month),),
            )
        ),
    ),
    Family(
        "day_type",
        "facts",
        _w("""
        Is it a weekday or the weekend? | Classify the day as weekday or weekend. | Write weekend
        for Saturday and Sunday, weekday for the rest. | Does this happen on a weekday or at the
        weekend? | Read the sentence and label its day weekend or weekday. | What kind of day is
        named: weekday, weekend? | Decide between weekend and weekday for the time given. | Given
        what someone does, tell if the day falls in the weekend or is a weekday. | Say weekday or
        weekend, depending on the day. | Which is it here, weekend or weekday?"""),
        labels=lambda s: ("weekday", "weekend"),
        sentences=lambda rng, s, i, a: (
            f"{i}. {i.split()[-1]} is {'a weekday' if a == 'weekday' else 'at the weekend'}."
        ),
        **_frames(
            ("{} {} on {}", (lx.NAMES, _HABITS, lx.DAYS[:5]), lambda s, *words: ("weekday",)),
            ("{} {} on {}", (lx.NAMES, _HABITS, lx.DAYS[5:]), lambda s, *words: ("weekend",)),
        ),
    ),
    Family(
        "season_of",
        "facts",
        _w("""
        Is it winter, spring, summer or autumn? | Name the season of the year in which this
        happens. | Which season does the month belong to? | Label the time of year, out of autumn,
        summer, spring and winter. | Given a month, tell the season in Europe. | Find out what time
        of year it is: spring, summer, autumn, winter. | When somebody does this, what season do we
        have? | Choose among the four seasons the one that fits the month. | Write the season for
        the month mentioned. | Of the four seasons, which is meant by that date?"""),
        labels=lambda s: _SEASONS,
        sentences=_say("{I}, that is in {a}.", "{I}, so it is {a}.", "{I}. It is {a}."),
        **_frames(
            *(
                (
                    "{} {} in {}",
                    (lx.NAMES, _HABITS, months),
                    lambda s, *words, season=season: (season,),
                )
                for season, months in _MONTHS_OF.items()
            )
        ),
    ),
    Family(
        "english_to_spanish",
        "spanish",
        _w("""
        Translate the phrase into Spanish. | How do you say this in Spanish? | Write it the way
        people in Madrid would. | What are the Spanish words for these two things? | Put both nouns
        into Spanish, joined by y. | Change English to Spanish. | Given two nouns, give their
        Spanish names with el or la. | A friend from Spain asks what it means; answer in Spanish. |
        Give the Spanish version of this phrase. | Say the same in the language of Spain."""),
        weight=1.5,
        sentences=_say(
            "In Spanish, {i} is {a}.", "{I} means {a} in Spanish.", "{A} is Spanish for {i}."
        ),
        **_frames(
            ("{} and {}", (tuple(_ES),) * 2, lambda s, one, two: (f"{_ES[one]} y {_ES[two]}",))
        ),
    ),
    Family(
        "spanish_to_english",
        "spanish",
        _w("""
        Translate the Spanish phrase to English. | What does this mean in English? | Write the
        English for these Spanish words. | Someone from Spain says this; tell me in English what
        they name. | Put the two nouns into English. | Change Spanish to English. | I cannot read
        Spanish, so please give me the meaning of the phrase. | Given words of Spanish, find the
        English ones. | How would a person from London say it? | Give an English version of what is
        written here in Spanish."""),
        weight=1.5,
        sentences=_say("In English, {i} is {a}.", "{I} means {a}.", "{A} is English for {i}."),
        **_frames(
            ("{} y {}", (tuple(_EN),) * 2, lambda s, one, two: (f"{_EN[one]} and {_EN[two]}",))
        ),
    ),
    Family(
        "spanish_adjective",
        "spanish",
        _w("""
        How do you say the {adj} {noun} in Spanish? | Translate the words the {adj} {noun} into
        Spanish. | Give the Spanish for the {adj} {noun}. | You are in Madrid and see the {adj}
        {noun}; name it in Spanish. | What do people in Spain call the {adj} {noun}? | In Spanish,
        what is the {adj} {noun}? | Tell me the Spanish phrase that means the {adj} {noun}. | Speak
        of the {adj} {noun}, but in Spanish. | Into the language of Spain, put the {adj} {noun}. |
        If Spanish children talk about the {adj} {noun}, what do they say?"""),
        slots={"adj": _ES_ADJECTIVES, "noun": _ES_NOUNS},
        weight=1.5,
        sentences=_say("In Spanish, the {adj} {noun} is {a}.", "{A} means the {adj} {noun}."),
        **_no_input(lambda s: _spanish(s["adj"], s["noun"])),
    ),
    Family(
        "describe_in_english",
        "spanish",
        _w("""
        Translate this description from Spanish into English. | What is being described, in
        English? | Say in English which thing the Spanish phrase describes. | Give the English noun
        with its adjective for these Spanish words. | Write the described thing in English, with
        the adjective before the noun. | A child in Spain talks about a thing; how is it called in
        English? | Read the Spanish description and put it into English. | How would you describe
        that thing in English? | Turn the Spanish adjective and noun into English. | Find the
        English phrase for this Spanish description."""),
        reserved=True,
        sentences=_say("In English, {i} is {a}.", "{I} means {a}."),
        **_frames(("{}", (tuple(_ES_PHRASES),), lambda s, phrase: (_ES_PHRASES[phrase],))),
    ),
    Family(
        "language_of",
        "spanish",
        _w("""
        Is this English or Spanish? | Name the language, English or Spanish. | Which language is it
        written in: Spanish or English? | Tell if the phrase is Spanish or English. | Write down
        whether Spanish or English words are used. | Would you hear it in Spain or in England?
        Answer Spanish or English. | Decide between English and Spanish for this text. | Given a
        phrase, write English when it is English and Spanish when it is Spanish. | Do these words
        come from Spanish or from English? | Classify the language as Spanish or English."""),
        labels=lambda s: ("English", "Spanish"),
        sentences=_say("The phrase {i} is {a}.", "{I} is written in {a}.", "We say {i} in {a}."),
        **_frames(
            ("{} and {}", (tuple(_ES),) * 2, lambda s, *words: ("English",)),
            ("{}", (tuple(_ES_PHRASES.values()),), lambda s, phrase: ("English",)),
            ("{} y {}", (tuple(_EN),) * 2, lambda s, *words: ("Spanish",)),
            ("{}", (tuple(_ES_PHRASES),), lambda s, phrase: ("Spanish",)),
        ),
    ),
    Family(
        "spanish_pick",
        "spanish",
        _w("""
        Which of these Spanish words means {word}? | Find the Spanish for {word} in the list. |
        Choose the word that stands for {word}. | Someone says {word}; pick its Spanish name from
        the three. | One of the words is {word} in Spanish: write it. | What here is the
        translation of {word}? | Given three Spanish words, copy the one for {word}. | Look for
        {word} among these words of Spanish. | Select the Spanish word with the meaning {word}. |
        How is {word} called? Take a word from below."""),
        slots={"word": _ES_NOUNS + _ES_ADJECTIVES},
        weight=1.5,
        sentences=_say(
            "Among {i}, the word for {word} is {a}.", "The Spanish word {a} means {word}."
        ),
        **_pick(
            tuple(lx.SPANISH[w] for w in _ES_NOUNS + _ES_ADJECTIVES),
            lambda s, word: lx.SPANISH[s["word"]] == word,
        ),
    ),
)
