"""Families that judge, rewrite or write one short sentence.

Most inputs are instances of one grammar: ``Name verb the [colour] noun [in the place].``, in the
present or the past tense, so that a tiny model that has learnt it can write new inputs itself.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable

from selfinstruct_train.microworld import lexicon as lex
from selfinstruct_train.microworld.world import Family, Slots

# Lemma -> third person, past, participle, and the things one commonly does it to.
_VERBS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "eat": ("eats", "ate", "eaten", (*lex.FRUITS, "cake", "bread", "soup", "rice", "pizza")),
    "drink": ("drinks", "drank", "drunk", lex.DRINKS),
    "cook": ("cooks", "cooked", "cooked", ("soup", "rice", "pasta", "potato", "onion", "carrot")),
    "wash": ("washes", "washed", "washed", (*lex.VEHICLES, "shirt", "sock", "dog", "horse")),
    "paint": ("paints", "painted", "painted", lex.FURNITURE),
    "buy": ("buys", "bought", "bought", (*lex.CLOTHES, "bike", "lamp", "kite", "piano")),
    "sell": ("sells", "sold", "sold", (*lex.VEHICLES, "cow", "pig", "guitar", "violin")),
    "take": ("takes", "took", "taken", (*lex.TOYS, "hat", "coat", "bus", "train")),
    "find": ("finds", "found", "found", (*lex.TOOLS, "ball", "kite", "cat", "dog")),
    "see": ("sees", "saw", "seen", lex.ANIMALS),
    "make": ("makes", "made", "made", ("cake", "soup", "salad", "pizza", "dress", "kite", "doll")),
}
_NOUNS = tuple(dict.fromkeys((*lex.THINGS, *lex.FOODS, *lex.DRINKS, *lex.ANIMALS)))
# The places of which one says "in the".
_PLACES = ("park", "school", "kitchen", "garden", "shop", "forest", "library", "station")
_PRESENT = {forms[0]: lemma for lemma, forms in _VERBS.items()}
_PAST = {forms[1]: lemma for lemma, forms in _VERBS.items()}


def _any(words: Iterable[str]) -> str:
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_OBJECT = rf"the (?:(?P<colour>{_any(lex.COLOURS)}) )?(?P<noun>{_any(_NOUNS)})"
_TAIL = rf"(?P<tail> in the (?P<place>{_any(_PLACES)}))?"
_SENTENCE = re.compile(
    rf"(?P<name>{_any(lex.NAMES)}) (?P<form>{_any([*_PRESENT, *_PAST])}) {_OBJECT}{_TAIL}\."
)
_QUESTION = re.compile(rf"(?:Does|Did) {_any(lex.NAMES)} {_any(_VERBS)} {_OBJECT}{_TAIL}\?")

Sampler = Callable[[random.Random, Slots], str]
Drill = Callable[[random.Random, Slots, str, str], str]


def _sentence(rng: random.Random, past: bool | None, colour: float = 0.0, tail: float = 0.4) -> str:
    lemma = rng.choice(list(_VERBS))
    third, before, _, nouns = _VERBS[lemma]
    form = rng.choice((third, before)) if past is None else before if past else third
    shade = rng.choice(lex.COLOURS) + " " if rng.random() < colour else ""
    end = f" in the {rng.choice(_PLACES)}" if rng.random() < tail else ""
    return f"{rng.choice(lex.NAMES)} {form} the {shade}{rng.choice(nouns)}{end}."


def _sampler(past: bool | None, colour: float = 0.0, tail: float = 0.4) -> Sampler:
    return lambda rng, slots: _sentence(rng, past, colour, tail)


def _parse(text: str) -> re.Match[str] | None:
    return _SENTENCE.fullmatch(text.strip())


def _lemma(match: re.Match[str]) -> tuple[str, bool]:
    form = match["form"]
    return (_PAST[form], True) if form in _PAST else (_PRESENT[form], False)


def _rest(match: re.Match[str]) -> str:
    """What follows the verb, without the full stop."""
    return match.string[match.end("form") : match.end() - 1]


def _swap(match: re.Match[str], group: str, word: str) -> tuple[str, ...]:
    """The sentence with another word in one place; nothing to do if it is there already."""
    if match[group] in (None, word):
        return ()
    return (match.string[: match.start(group)] + word + match.string[match.end(group) :],)


def _says(*frames: str) -> Drill:
    """A drill that fills one of the frames with the input, the answer and the slots."""

    def drill(rng: random.Random, slots: Slots, text: str, answer: str) -> str:
        return rng.choice(frames).format(i=text, a=answer, b=text.rstrip(".?!"), **slots)

    return drill


def _negative(slots: Slots, text: str) -> tuple[str, ...]:
    if not (match := _parse(text)):
        return ()
    lemma, past = _lemma(match)
    full, short = ("did not", "didn't") if past else ("does not", "doesn't")
    return tuple(f"{match['name']} {no} {lemma}{_rest(match)}." for no in (full, short))


def _question(slots: Slots, text: str) -> tuple[str, ...]:
    if not (match := _parse(text)):
        return ()
    lemma, past = _lemma(match)
    return (f"{'Did' if past else 'Does'} {match['name']} {lemma}{_rest(match)}?",)


def _to_past(slots: Slots, text: str) -> tuple[str, ...]:
    if not (match := _parse(text)) or match["form"] not in _PRESENT:
        return ()
    return _swap(match, "form", _VERBS[_PRESENT[match["form"]]][1])


def _pronoun(slots: Slots, text: str) -> tuple[str, ...]:
    match = _parse(text)
    return _swap(match, "name", "She" if match["name"] in lex.GIRLS else "He") if match else ()


def _passive(slots: Slots, text: str) -> tuple[str, ...]:
    match = _parse(text)
    if not match or match["form"] not in _PAST or match["tail"]:
        return ()
    done = _VERBS[_PAST[match["form"]]][2]
    return (f"T{_rest(match)[2:]} was {done} by {match['name']}.",)


def _replace(group: str, slot: str) -> Callable[[Slots, str], tuple[str, ...]]:
    def answers(slots: Slots, text: str) -> tuple[str, ...]:
        match = _parse(text)
        return _swap(match, group, slots[slot]) if match else ()

    return answers


def _other(answers: Callable[[Slots, str], tuple[str, ...]], sampler: Sampler) -> Sampler:
    """The sampler, repeated until the instruction changes something."""

    def sample(rng: random.Random, slots: Slots) -> str:
        while not answers(slots, text := sampler(rng, slots)):
            pass
        return text

    return sample


_new_name, _new_colour = _replace("name", "name"), _replace("colour", "colour")
_new_place = _replace("place", "place")


def _joined(slots: Slots, text: str) -> tuple[str, ...]:
    parts = re.findall(r"[^.]+\.", text.strip())
    matches = [_parse(part) for part in parts]
    if len(parts) != 2 or not all(matches) or text.strip() != " ".join(p.strip() for p in parts):
        return ()
    one, two = (part.strip() for part in parts)
    return tuple(f"{one[:-1]}{comma} {slots['joiner']} {two}" for comma in ("", ","))


def _two_sentences(rng: random.Random, slots: Slots) -> str:
    return f"{_sentence(rng, True, tail=0.0)} {_sentence(rng, True, tail=0.0)}"


_GOOD = ("good", "great", "lovely", "wonderful", "nice", "perfect")
_BAD = ("bad", "awful", "terrible", "horrible", "boring", "poor")
_LIKED = ("loved", "liked", "enjoyed")
_DISLIKED = ("hated", "disliked")
_REVIEWED = (*lex.FOODS, *lex.DRINKS, *lex.PLACES, "book", "game", "song", "story", "hotel", "film")
_REVIEW = re.compile(
    rf"The {_any(_REVIEWED)} was (?:very |really |so )?(?P<was>{_any(_GOOD + _BAD)})\.|"
    rf"I (?:really )?(?P<did>{_any(_LIKED + _DISLIKED)}) the {_any(_REVIEWED)}\."
)


def _sentiment(slots: Slots, text: str) -> tuple[str, ...]:
    if not (match := _REVIEW.fullmatch(text.strip())):
        return ()
    return ("positive" if (match["was"] or match["did"]) in _GOOD + _LIKED else "negative",)


def _review(rng: random.Random, slots: Slots) -> str:
    good, what = rng.random() < 0.5, rng.choice(_REVIEWED)
    if rng.random() < 0.6:
        how = rng.choice(("", "really ", "so "))
        return f"The {what} was {how}{rng.choice(_GOOD if good else _BAD)}."
    return f"I {rng.choice(('', 'really '))}{rng.choice(_LIKED if good else _DISLIKED)} the {what}."


def _kind(slots: Slots, text: str) -> tuple[str, ...]:
    if _QUESTION.fullmatch(text.strip()):
        return ("question",)
    return ("statement",) if _parse(text) else ()


def _either_kind(rng: random.Random, slots: Slots) -> str:
    text = _sentence(rng, None)
    return text if rng.random() < 0.5 else _question(slots, text)[0]


def _tense(slots: Slots, text: str) -> tuple[str, ...]:
    return (("past" if _lemma(match)[1] else "present"),) if (match := _parse(text)) else ()


_POLITE = (
    "Please {} for me.",
    "Could you please {}?",
    "Would you kindly {}?",
    "Be so kind and {}.",
)
_RUDE = ("Hurry up and {}!", "Shut up and {}!", "Just {}, you fool!", "You must {} now, stupid!")
_MANNERS = {
    label: re.compile(
        _any(re.escape(f).replace(r"\{\}", f"{_any(_VERBS)} the {_any(_NOUNS)}") for f in frames)
    )
    for label, frames in (("polite", _POLITE), ("rude", _RUDE))
}


def _manners(slots: Slots, text: str) -> tuple[str, ...]:
    return tuple(label for label, form in _MANNERS.items() if form.fullmatch(text.strip()))


def _request(rng: random.Random, slots: Slots) -> str:
    lemma = rng.choice(list(_VERBS))
    frame = rng.choice(rng.choice((_POLITE, _RUDE)))
    return frame.format(f"{lemma} the {rng.choice(_VERBS[lemma][3])}")


# Topic -> who, what; a day may follow.
_TOPICS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sport": (lex.NAMES, ("won the race", "lost the match", "kicked the ball", "scored a goal")),
    "food": (lex.NAMES, tuple(f"{verb} the {x}" for verb in ("ate", "cooked") for x in lex.FOODS)),
    "weather": (
        ("It", "The day", "The morning", "The evening", "The night"),
        ("was rainy", "was windy", "was sunny", "was foggy", "was cloudy", "was stormy"),
    ),
    "school": (
        lex.NAMES,
        ("did the homework", "passed the test", "asked the teacher", "read a book"),
    ),
}
_TOPIC_FORMS = {
    topic: re.compile(rf"{_any(who)} {_any(what)}(?: on {_any(lex.DAYS)})?\.")
    for topic, (who, what) in _TOPICS.items()
}


def _topic(slots: Slots, text: str) -> tuple[str, ...]:
    return tuple(topic for topic, form in _TOPIC_FORMS.items() if form.fullmatch(text.strip()))


def _on_topic(rng: random.Random, slots: Slots) -> str:
    who, what = rng.choice(list(_TOPICS.values()))
    day = f" on {rng.choice(lex.DAYS)}" if rng.random() < 0.7 else ""
    return f"{rng.choice(who)} {rng.choice(what)}{day}."


_KINDS = ("animal", "fruit", "vegetable", "tool", "garment", "vehicle", "instrument", "toy")
_MEMBERS = {word: kind for kind in _KINDS for word in lex.CATEGORIES[kind]}
_IS_A = re.compile(
    rf"(?P<is>An? (?P<word>{_any(_MEMBERS)})) is (?P<of>an? (?P<kind>{_any(_KINDS)}))\."
)
_CAPITAL = re.compile(
    rf"(?P<city>{_any(lex.CAPITALS.values())}) is the capital of (?P<land>{_any(lex.CAPITALS)})\."
)
_MORE = re.compile(r"(?P<a>1?\d|20) is more than (?P<b>1?\d|20)\.")


def _truth(slots: Slots, text: str) -> tuple[str, ...]:
    text = text.strip()
    if match := _IS_A.fullmatch(text):
        if match["is"] != lex.capitalized(lex.article(match["word"])):
            return ()
        if match["of"] != lex.article(match["kind"]):
            return ()
        right = _MEMBERS[match["word"]] == match["kind"]
    elif match := _CAPITAL.fullmatch(text):
        right = lex.CAPITALS[match["land"]] == match["city"]
    elif match := _MORE.fullmatch(text):
        right = int(match["a"]) > int(match["b"])
    else:
        return ()
    return ("true" if right else "false",)


def _claim(rng: random.Random, slots: Slots) -> str:
    right, shape = rng.random() < 0.5, rng.random()
    if shape < 0.5:
        word = rng.choice(list(_MEMBERS))
        kind = _MEMBERS[word] if right else rng.choice([k for k in _KINDS if k != _MEMBERS[word]])
        return f"{lex.capitalized(lex.article(word))} is {lex.article(kind)}."
    if shape < 0.75:
        land = rng.choice(list(lex.CAPITALS))
        city = lex.CAPITALS[land if right else rng.choice([x for x in lex.CAPITALS if x != land])]
        return f"{city} is the capital of {land}."
    low, high = sorted(rng.sample(range(21), 2))
    return f"{high} is more than {low}." if right else f"{low} is more than {high}."


def _thanks(slots: Slots, text: str) -> tuple[str, ...]:
    name, what = slots["name"], slots["thing"]
    gift = f"hank you for the {what}"
    forms = (
        f"T{gift}, {name}",
        f"{name}, t{gift}",
        f"Dear {name}, t{gift}",
        f"T{gift}, dear {name}",
    )
    return () if text.strip() else tuple(form + end for form in forms for end in ".!")


def _wish(slots: Slots, text: str) -> tuple[str, ...]:
    name, what = slots["name"], slots["occasion"]
    greetings = (f"Happy {what}", f"Happy {what} to you", f"Have a happy {what}")
    forms = (*(f"{x}, {name}" for x in greetings), f"I wish you a happy {what}, {name}")
    return () if text.strip() else tuple(form + end for form in forms for end in "!.")


_OCCASIONS = ("birthday", "New Year", "holiday", "summer", "winter", "weekend", *lex.DAYS)

FAMILIES: tuple[Family, ...] = (
    Family("review_sentiment", "judging", (
        "Is this review positive or negative?",
        "Decide whether the customer's opinion is positive or negative.",
        "Label the sentiment of the comment below: positive or negative.",
        "Read what the guest wrote and answer with positive or negative.",
        "Positive or negative: how does the writer feel about it?",
        "Classify the given review sentence by its sentiment, positive or negative.",
        "Somebody left an opinion. Say if it sounds positive or negative.",
        "Judge the mood of this feedback and write positive or negative.",
        "Tell me the feeling in the review, positive or negative.",
        "Does the sentence praise it (positive) or blame it (negative)?",
    ), _sentiment, _review, labels=lambda slots: ("positive", "negative"), sentences=_says(
        "{i} That review is {a}.", "It is {a} to say: {i}", "A {a} review is: {i}")),
    Family("statement_or_question", "judging", (
        "Is this a statement or a question?",
        "Say whether the sentence asks something or not: statement or question.",
        "Classify the line as question or statement.",
        "Which is it, a question or a statement?",
        "Name the sentence type below, choosing between statement and question.",
        "Answer with statement if it tells and question if it asks.",
        "Does the speaker state or ask? Write statement or question.",
        "Look at the sentence and pick the right label: statement, question.",
        "Mark the given words as a question or as a statement.",
        "Decide if what we hear tells (statement) or asks (question).",
    ), _kind, _either_kind, labels=lambda slots: ("statement", "question"), sentences=_says(
        "{i} This is a {a}.", "A {a} can be: {i}", "Here is a {a}. {i}")),
    Family("polite_or_rude", "judging", (
        "Is the request polite or rude?",
        "Someone said this to me. Was it rude or polite?",
        "Judge the manners of the speaker as polite or rude.",
        "Classify this request by its tone: polite, rude.",
        "Write polite for kind words and rude for unkind words.",
        "How does the sentence sound, rude or polite?",
        "Tell whether the person who says this is being polite or rude.",
        "Choose the label that fits the tone, either rude or polite.",
        "Decide between polite and rude for the words below.",
        "Does the speaker ask nicely? Answer polite if so, otherwise rude.",
    ), _manners, _request, labels=lambda slots: ("polite", "rude"), sentences=_says(
        "{i} That is {a}.", "It is {a} to say: {i}", "A {a} person says: {i}")),
    Family("sentence_topic", "judging", (
        "Is the sentence about sport, food, weather or school?",
        "Choose the topic that fits: sport, food, weather, school.",
        "What is this news line about? Pick school, sport, weather or food.",
        "Sort the message under food, school, sport or weather.",
        "Give the subject of the text: weather, sport, food or school.",
        "Classify by topic. The topics are sport, food, weather and school.",
        "Which of school, weather, food and sport does the writer talk about?",
        "Name the one theme of these words (food, sport, school, weather).",
        "Find the right topic for this sentence: school, food, weather, sport.",
        "Does it speak of weather, school, sport or food?",
    ), _topic, _on_topic, labels=lambda slots: tuple(_TOPICS), sentences=_says(
        "{i} This is about {a}.", "About {a} we say: {i}", "The topic is {a}. {i}")),
    Family("past_or_present", "judging", (
        "Is this sentence in the past or the present?",
        "Name the tense of the verb, past or present.",
        "Does it happen in the present or did it happen in the past?",
        "Classify the tense: present, past.",
        "Write past if it is over and present if it is not.",
        "Look at the verb below and answer present or past.",
        "Past or present? Tell me the time of the sentence.",
        "Determine which tense the writer uses, choosing past or present.",
        "Say if the action belongs to the present or to the past.",
        "What tense is used here, the present or the past?",
    ), _tense, _sampler(None), labels=lambda slots: ("past", "present"), sentences=_says(
        "{i} This is in the {a}.", "The tense is {a} in: {i}", "A {a} sentence is: {i}")),
    Family("true_or_false", "judging", (
        "Is this fact true or false?",
        "Check the claim and answer true or false.",
        "True or false: which word fits what is said?",
        "Say whether what the sentence tells us is true or false.",
        "Judge the statement below. Write true if it is right, false if wrong.",
        "Can we believe this? Reply with false or true.",
        "Mark the given fact as false or as true.",
        "Decide if the pupil is right (true) or has made a mistake (false).",
        "Tell me if that claim is false or true.",
        "Does the sentence state a real fact? Use true or false.",
    ), _truth, _claim, labels=lambda slots: ("true", "false"), weight=1.5, sentences=_says(
        "{i} That is {a}.", "It is {a} to say: {i}", "A {a} fact is: {i}")),
    Family("make_negative", "rewriting", (
        "Make the sentence negative.",
        "Put the word not into this sentence.",
        "Say that it is not so.",
        "Rewrite the line so that it says the opposite, using not.",
        "Turn this positive statement into a negative one.",
        "How do you deny what is said below?",
        "Change the given statement to its negative form.",
        "Write that this does not or did not happen.",
        "Give me the negative of the statement.",
        "What is the sentence with not added to the verb?",
    ), _negative, _sampler(None), weight=1.5, sentences=_says(
        "{i} The negative is: {a}", "It is not so that {b}. {a}", "Not true: {i} True: {a}")),
    Family("ask_question", "rewriting", (
        "Turn the statement into a yes/no question.",
        "Ask whether this is so.",
        "Make a question from the sentence.",
        "Which yes or no question has the line below as its answer?",
        "Rewrite it as a question that starts with Does or Did.",
        "Change this telling sentence to an asking one.",
        "Someone states this. Form a question to check it.",
        "How would you ask if the given statement is right?",
        "Write a question with Did or Does about the fact.",
        "Convert these words to a question for a yes or no answer.",
    ), _question, _sampler(None), weight=1.5, sentences=_says(
        "{a} Yes. {i}", "{i} The question is: {a}", "We ask: {a} The answer is: {i}")),
    Family("to_past", "rewriting", (
        "Put the sentence into the past tense.",
        "Rewrite it as if it happened yesterday.",
        "Change the verb from present to past.",
        "Tell this as something that is over.",
        "What would the line below be in the past?",
        "It happens today. Say that it happened before.",
        "Give the past form of the given sentence.",
        "Use the past tense to say the same thing.",
        "Turn this present sentence into one about the past.",
        "How do you write that about last week?",
    ), _to_past, _sampler(False), weight=1.5, sentences=_says(
        "Today: {i} Yesterday: {a}", "{i} In the past: {a}", "Present: {i} Past: {a}")),
    Family("name_to_pronoun", "rewriting", (
        "Replace the name by he or she.",
        "Use he or she in place of the person's name.",
        "Rewrite this without the name, starting with He or She.",
        "Put the right pronoun where the name is.",
        "How does the sentence read with a pronoun for the person?",
        "Do not say who it is: write only She or He instead.",
        "Swap the name in the line below for a pronoun.",
        "Take out the name and use a pronoun, he or she.",
        "Change the subject of the sentence to he or she.",
        "Say the same with He for a boy and She for a girl.",
    ), _pronoun, _sampler(None), sentences=_says(
        "{i} {a}", "{i} In other words: {a}", "With a pronoun: {a} With the name: {i}")),
    Family("to_passive", "rewriting", (
        "Rewrite the sentence in the passive.",
        "Begin with the thing and end with the person.",
        "Change active to passive.",
        "Use was and by to tell the same event.",
        "What is the passive form of the line below?",
        "Say what was done and by whom.",
        "Make the object the subject of this sentence.",
        "Turn these active words into a passive sentence with by.",
        "Give the passive version of the given sentence.",
        "Tell it the other way round, with the doer after by.",
    ), _passive, _sampler(True, 0.15, 0.0), weight=2.0, sentences=_says(
        "{i} So: {a}", "Active: {i} Passive: {a}", "{a} That means: {i}")),
    Family("replace_name", "rewriting", (
        "Replace the name in the sentence with {name}.",
        "Say the same about {name}.",
        "Rewrite the line so that {name} does it.",
        "It was really {name}. Correct the text.",
        "Put {name} where the other name stands.",
        "What would this sentence be if its hero were {name}?",
        "Make {name} the subject and keep all other words.",
        "Change who does it: the new person is {name}.",
        "Use the name {name} and leave the rest as it is.",
        "Take away the person named below and write {name} there.",
    ), _new_name, _other(_new_name, _sampler(None)), slots={"name": lex.NAMES}, sentences=_says(
        "{i} And {name}, too: {a}", "Not this: {i} But this: {a}", "{i} With {name} it is: {a}")),
    Family("change_colour", "rewriting", (
        "Change the colour in the sentence to {colour}.",
        "Make the thing {colour}.",
        "Rewrite this with {colour} as the new colour.",
        "The colour is wrong. It should be {colour}.",
        "Put the word {colour} where the old colour is.",
        "How does the line read when the object is {colour}?",
        "Paint it {colour} and write the text again.",
        "Keep all the words, but say {colour} for the colour.",
        "Use {colour} instead of the colour given below.",
        "What is the sentence if everything in it turns {colour}?",
    ), _new_colour, _other(_new_colour, _sampler(None, 1.0, 0.2)), slots={"colour": lex.COLOURS},
        sentences=_says("{i} In {colour}: {a}", "Not this: {i} But this: {a}",
                        "{i} With {colour} it is: {a}")),
    Family("change_place", "rewriting", (
        "Change the place in the sentence to the {place}.",
        "Let it happen in the {place}.",
        "Rewrite this with the {place} as the new place.",
        "The place is wrong. It should be the {place}.",
        "Put the word {place} where the old place is.",
        "How does the line read when we are in the {place}?",
        "Move it all to the {place} and write the text again.",
        "Keep each word, but say {place} for the place.",
        "Use the {place} instead of the place given below.",
        "What is the sentence if someone does it in the {place}?",
    ), _new_place, _other(_new_place, _sampler(None, 0.0, 1.0)), slots={"place": _PLACES},
        sentences=_says("{i} In the {place}: {a}", "Not this: {i} But this: {a}"), reserved=True),
    Family("join_sentences", "rewriting", (
        "Join the two sentences with {joiner}.",
        "Make one sentence out of these, using the word {joiner}.",
        "Write {joiner} between both parts.",
        "Combine them: put {joiner} in the middle.",
        "Link the first event to the second by {joiner}.",
        "How do you say this in a single sentence with {joiner}?",
        "Connect what is given below and use {joiner} to do so.",
        "Two short lines are too many. Turn them into one with {joiner}.",
        "Use {joiner} to bring the pair of sentences together.",
        "Rewrite the text as one long sentence that contains {joiner}.",
    ), _joined, _two_sentences, slots={"joiner": ("and", "but", "while")}, weight=1.5,
        sentences=_says("{i} Together: {a}", "{i} With {joiner}: {a}", "{a} In two parts: {i}")),
    Family("thank_you_line", "writing", (
        "Write a thank-you line to {name} for the {thing}.",
        "Thank {name} for a {thing} in one sentence.",
        "The {thing} came from {name}. Say thanks.",
        "How would you thank someone called {name} who gave you the {thing}?",
        "You got this gift: {thing}. Send your thanks to {name}.",
        "{name} has given me a new {thing}, so write the thank-you card.",
        "Compose a short note of thanks for {name} about the {thing}.",
        "For the {thing}, tell {name} thank you.",
        "What can I say to {name} to show thanks for the {thing}?",
        "Give {name} a line of thanks after getting the {thing}.",
    ), _thanks, slots={"name": lex.NAMES, "thing": lex.THINGS}, sentences=_says(
        "{name} gave me the {thing}. {a}", "I said: {a}", "To thank {name} we write: {a}")),
    Family("wish_card", "writing", (
        "Write a {occasion} wish for {name}.",
        "Wish {name} a happy {occasion}.",
        "What do you say to {name} for a {occasion}?",
        "Make a card for the {occasion} of our friend {name}.",
        "It is {name} that needs a {occasion} card. Write the line.",
        "Send {name} one line with good wishes, because it is {occasion} time.",
        "Greet {name} with the right words on this {occasion}.",
        "Find a kind {occasion} greeting that I can give {name}.",
        "How can I greet {name} with a happy {occasion} line?",
        "Please give me the {occasion} message to send to {name}.",
    ), _wish, slots={"name": lex.NAMES, "occasion": _OCCASIONS}, sentences=_says(
        "On the card for {name} it says: {a}", "We all say: {a}", "A {occasion} wish is: {a}")),
)  # fmt: skip
