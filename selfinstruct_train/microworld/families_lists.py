"""Families about short lists: order, position, membership and layout."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from selfinstruct_train.microworld import lexicon as lex
from selfinstruct_train.microworld.world import Family, Slots

_LOWER_POOLS = (*lex.CATEGORIES.values(), lex.BODY, lex.FURNITURE)
_POOLS = (*_LOWER_POOLS, lex.NAMES, lex.DAYS)
_LOWER = tuple(dict.fromkeys(word for pool in _LOWER_POOLS for word in pool))
_SLOT_WORDS = lex.ANIMALS + lex.FRUITS + lex.TOOLS
_CATEGORY_OF = {w: c for c, words in lex.CATEGORIES.items() for w in words}
# Edible things count as one kind, and a peach is a colour too: such pairs are disputable.
_KIND = dict.fromkeys(("fruit", "vegetable", "food", "drink", "colour"), "edible or colour")
_FINDABLE = tuple(c for c in lex.CATEGORIES if c != "food")
_ORDINALS = ("first", "second", "third")
_TIMES = {"two": 2, "three": 3, "four": 4}
_MARKS = {"semicolons": "; ", "dashes": " - "}

Sampler = Callable[[random.Random, Slots], str]


def _words(rng: random.Random, size: int, banned: tuple[str, ...] = ()) -> list[str]:
    """Distinct words, from one theme or mixed."""
    pool = rng.choice(_POOLS) if rng.random() < 0.5 else _LOWER
    return rng.sample([word for word in pool if word not in banned], size)


def _list_of(*sizes: int) -> Sampler:
    return lambda rng, slots: ", ".join(_words(rng, rng.choice(sizes), (slots.get("word", ""),)))


def _parse(text: str, low: int = 2, high: int = 6) -> tuple[str, ...]:
    """The distinct one-word items of a list of acceptable length, or nothing."""
    found = lex.items(text)
    good = low <= len(found) <= high and len(set(found)) == len(found)
    return found if good and all(re.fullmatch(r"[A-Za-z]+", item) for item in found) else ()


def _numbers(text: str) -> tuple[int, ...]:
    found = lex.items(text)
    good = len(found) == 3 and all(re.fullmatch(r"\d{1,2}", item, re.ASCII) for item in found)
    values = tuple(int(item) for item in found) if good else ()
    return values if len(set(values)) == len(values) else ()


def _pair(text: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    halves = text.split(";")
    if len(halves) != 2:
        return None
    left, right = _parse(halves[0]), _parse(halves[1])
    return (left, right) if left and right else None


def _on_list(
    rule: Callable[[Slots, tuple[str, ...]], str], low: int = 2, high: int = 6
) -> Callable[[Slots, str], tuple[str, ...]]:
    """Answers by a rule on the parsed items; none where the input is no such list."""

    def answers(slots: Slots, text: str) -> tuple[str, ...]:
        found = _parse(text, low, high)
        return (rule(slots, found),) if found else ()

    return answers


def _say(*templates: str) -> Callable[[random.Random, Slots, str, str], str]:
    """Sentences from templates with the slots, ``{x}`` for the input and ``{y}`` for the answer."""

    def sentence(rng: random.Random, slots: Slots, text: str, answer: str) -> str:
        said = rng.choice(templates).format(**slots, x=text.strip(), y=answer)
        return lex.capitalized(said)

    return sentence


def _end(slots: Slots, found: tuple[str, ...]) -> str:
    return found[0 if slots["which"] == "first" else -1]


def _drop(slots: Slots, found: tuple[str, ...]) -> str:
    return ", ".join(found[1:] if slots["which"] == "first" else found[:-1])


def _swap(slots: Slots, found: tuple[str, ...]) -> str:
    return ", ".join((found[-1], *found[1:-1], found[0]))


def _join_and(slots: Slots, found: tuple[str, ...]) -> str:
    return ", ".join(found[:-1]) + " and " + found[-1]


def _alphabet(slots: Slots, text: str) -> tuple[str, ...]:
    found = _parse(text)
    initials = {item[0].lower() for item in found}
    return (", ".join(sorted(found, key=str.lower)),) if 0 < len(initials) == len(found) else ()


def _alphabet_input(rng: random.Random, slots: Slots) -> str:
    while True:
        text = ", ".join(_words(rng, 3))
        if _alphabet(slots, text) not in ((), (text,)):
            return text


def _sort_numbers(slots: Slots, text: str) -> tuple[str, ...]:
    values = sorted(_numbers(text), reverse=slots["order"] == "descending")
    return (", ".join(map(str, values)),) if values else ()


def _sort_numbers_input(rng: random.Random, slots: Slots) -> str:
    while True:
        text = ", ".join(map(str, rng.sample(range(1, 21), 3)))
        if _sort_numbers(slots, text) != (text,):
            return text


def _count(slots: Slots, text: str) -> tuple[str, ...]:
    size = len(_parse(text))
    return (str(size), lex.NUMBER_WORDS[size]) if size else ()


def _odd_one(slots: Slots, text: str) -> tuple[str, ...]:
    found = _parse(text, 4, 4)
    kinds = [_CATEGORY_OF.get(item, "") for item in found]
    if not found or "" in kinds or sorted(map(kinds.count, kinds)) != [1, 3, 3, 3]:
        return ()
    return tuple(item for item, kind in zip(found, kinds, strict=True) if kinds.count(kind) == 1)


def _odd_one_input(rng: random.Random, slots: Slots) -> str:
    while True:
        many, one = rng.sample(tuple(lex.CATEGORIES), 2)
        found = [*rng.sample(lex.CATEGORIES[many], 3), rng.choice(lex.CATEGORIES[one])]
        rng.shuffle(found)
        apart = _KIND.get(many, many) != _KIND.get(one, one)
        if apart and "orange" not in found:
            return ", ".join(found)


def _find(slots: Slots, text: str) -> tuple[str, ...]:
    found = [w for w in _parse(text) if _CATEGORY_OF.get(w) == slots["category"]]
    return tuple(found) if len(found) == 1 else ()


def _find_input(rng: random.Random, slots: Slots) -> str:
    wanted = slots["category"]
    kind = _KIND.get(wanted, wanted)
    others = [c for c in lex.CATEGORIES if c != wanted and _KIND.get(c, c) != kind]
    found = [rng.choice(lex.CATEGORIES[c]) for c in (wanted, *rng.sample(others, 2))]
    rng.shuffle(found)
    return _find_input(rng, slots) if "orange" in found else ", ".join(found)


def _contains(slots: Slots, found: tuple[str, ...]) -> str:
    return "yes" if slots["word"] in found else "no"


def _contains_input(rng: random.Random, slots: Slots) -> str:
    word = slots["word"]
    found = _words(rng, 3, (word,))
    if rng.random() < 0.5:
        found[rng.randrange(3)] = word
    return ", ".join(found)


def _repeat(slots: Slots, text: str) -> tuple[str, ...]:
    word, times = text.strip(), _TIMES[slots["n"]]
    if not re.fullmatch(r"[A-Za-z]+", word):
        return ()
    return tuple(mark.join([word] * times) for mark in (" ", ", "))


def _add(slots: Slots, found: tuple[str, ...]) -> str:
    word = (slots["word"],)
    return ", ".join(word + found if slots["where"] == "front" else found + word)


def _replace(slots: Slots, found: tuple[str, ...]) -> str:
    at = _ORDINALS.index(slots["which"])
    return ", ".join((*found[:at], slots["word"], *found[at + 1 :]))


def _common(slots: Slots, text: str) -> tuple[str, ...]:
    pair = _pair(text)
    shared = tuple(w for w in pair[0] if w in pair[1]) if pair else ()
    return shared if len(shared) == 1 else ()


def _common_input(rng: random.Random, slots: Slots) -> str:
    shared, *rest = _words(rng, 5)
    left, right = [shared, *rest[:2]], [shared, *rest[2:]]
    rng.shuffle(left)
    rng.shuffle(right)
    return f"{', '.join(left)}; {', '.join(right)}"


def _same(slots: Slots, text: str) -> tuple[str, ...]:
    pair = _pair(text)
    # Lists that differ in order only are left out: whether they are the same is a matter of taste.
    if pair is None or (pair[0] != pair[1] and set(pair[0]) == set(pair[1])):
        return ()
    return ("same",) if pair[0] == pair[1] else ("different",)


def _same_input(rng: random.Random, slots: Slots) -> str:
    *left, new = _words(rng, 4)
    right = list(left)
    if rng.random() < 0.5:
        right[rng.randrange(3)] = new
    return f"{', '.join(left)}; {', '.join(right)}"


def _is_sorted(slots: Slots, text: str) -> tuple[str, ...]:
    values = _numbers(text)
    return (("yes",) if list(values) == sorted(values) else ("no",)) if values else ()


def _is_sorted_input(rng: random.Random, slots: Slots) -> str:
    values = sorted(rng.sample(range(1, 21), 3))
    if rng.random() < 0.5:
        rising = list(values)
        while values == rising:
            rng.shuffle(values)
    return ", ".join(map(str, values))


_YES_NO = ("yes", "no")

FAMILIES: tuple[Family, ...] = (
    Family(
        "list_reverse",
        "lists",
        (
            "Reverse the order of this list.",
            "Write these items backwards, starting with the last one.",
            "What does the list look like from back to front?",
            "Turn the whole row of words around.",
            "Read the items in the opposite order and write them down.",
            "Flip this list so that its end becomes its beginning.",
            "Given some words, give them back in reverse order.",
            "Can you say these things from last to first?",
            "Put the items in backward order.",
            "How would the list read in reverse?",
        ),
        _on_list(lambda s, f: ", ".join(f[::-1])),
        _list_of(3),
        weight=2.5,
        sentences=_say(
            "backwards, {x} is {y}.", "the reverse of {x} is {y}.", "turn {x} around to get {y}."
        ),
    ),
    Family(
        "list_end_item",
        "lists",
        (
            "What is the {which} item of the list?",
            "Name the word that comes {which}.",
            "Copy only the {which} one of these words.",
            "Give me just the {which} thing listed.",
            "Which of the items stands {which}?",
            "Look at the list and write down its {which} word.",
            "Keep nothing but the {which} entry.",
            "Someone reads this list aloud. Which word is said {which}?",
            "Tell me the {which} element.",
            "From the words given, return the {which}.",
        ),
        _on_list(_end),
        _list_of(3, 4),
        {"which": ("first", "last")},
        sentences=_say("the {which} item of {x} is {y}.", "in the list {x}, {y} comes {which}."),
    ),
    Family(
        "list_item_number",
        "lists",
        (
            "What is item number {n} of the list?",
            "Write down the word in position {n}.",
            "Count along the items and stop at number {n}.",
            "Which word has place {n} here?",
            "Return entry {n} and nothing else.",
            "If the items are numbered from 1, which one gets number {n}?",
            "Pick element {n} out of these words.",
            "Number the things listed and tell me number {n}.",
            "Give the item at place {n} in the list.",
            "Which of these words is number {n}?",
        ),
        _on_list(lambda s, f: f[int(s["n"]) - 1], 3),
        _list_of(3, 4),
        {"n": ("1", "2", "3")},
        weight=1.5,
        sentences=_say("item {n} of {x} is {y}.", "number {n} in the list {x} is {y}."),
    ),
    Family(
        "list_middle",
        "lists",
        (
            "What is the middle item of the list?",
            "Which word stands between the two others?",
            "Name the thing in the centre of these three.",
            "Three words are given. Write the one in the middle.",
            "Leave out both ends and keep the central item.",
            "Tell me which entry has one neighbour on each side.",
            "Copy just the middle word, please.",
            "Of three items, return the one at the centre.",
            "Find the word in the middle of this list.",
            "Which item is in the centre?",
        ),
        _on_list(lambda s, f: f[1], 3, 3),
        _list_of(3),
        reserved=True,
        sentences=_say("the middle item of {x} is {y}.", "in the middle of {x} is {y}."),
    ),
    Family(
        "list_count",
        "lists",
        (
            "How many items are in the list?",
            "Count the words given to you.",
            "Give the number of things listed here.",
            "What is the length of this list?",
            "Tell me how long the list is.",
            "Write how many words you see.",
            "Say with a number how many entries there are.",
            "Work out the total number of items.",
            "Find the count of these items.",
            "How many things does this list have?",
        ),
        _count,
        _list_of(2, 3, 4, 5, 6),
        weight=1.5,
        sentences=_say("there are {y} items in {x}.", "the list {x} has {y} words."),
    ),
    Family(
        "list_sort_words",
        "sorting",
        (
            "Sort all the words alphabetically, please.",
            "Put these items in alphabetical order.",
            "Arrange the list from A to Z.",
            "Which order would these words have in a dictionary?",
            "Order the words by their first letter.",
            "Rewrite the list so that it follows the alphabet.",
            "Given three words, list them as a dictionary does.",
            "Can you alphabetize the items?",
            "List the words in the order of the alphabet.",
            "Sort this list by letter, A first.",
        ),
        _alphabet,
        _alphabet_input,
        weight=2.5,
        sentences=_say(
            "in alphabetical order, {x} becomes {y}.",
            "from A to Z, {x} is {y}.",
            "a dictionary lists {x} as {y}.",
        ),
    ),
    Family(
        "list_sort_numbers",
        "sorting",
        (
            "Sort the numbers in {order} order.",
            "Arrange these values so that they are {order}.",
            "What is the {order} order of the three numbers?",
            "Make the list of numbers {order}.",
            "Use {order} order to rewrite this list.",
            "Three numbers are given. Write them out, {order}.",
            "Can you put the numbers into {order} order?",
            "By size, in {order} order, list the numbers.",
            "Order the values by size, {order}.",
            "Return them sorted by size so that the result is in {order} order.",
        ),
        _sort_numbers,
        _sort_numbers_input,
        {"order": ("ascending", "descending")},
        weight=2.5,
        sentences=_say("in {order} order, {x} becomes {y}.", "{order}, the numbers {x} are {y}."),
    ),
    Family(
        "list_drop_item",
        "lists",
        (
            "Remove the {which} item from the list.",
            "Write all the words except the {which} one.",
            "Leave out whatever comes {which}.",
            "What remains if you take away the {which} word?",
            "Delete the {which} entry and keep the others.",
            "Drop the {which} of these things.",
            "Copy the list without its {which} item.",
            "Cross out the {which} word and show what stays.",
            "Take the {which} item off this list.",
            "Which words are left without the {which}?",
        ),
        _on_list(_drop, 3),
        _list_of(3, 4),
        {"which": ("first", "last")},
        weight=1.5,
        sentences=_say(
            "without the {which} item, {x} is {y}.",
            "take the {which} word from {x} and {y} remains.",
        ),
    ),
    Family(
        "list_swap_ends",
        "lists",
        (
            "Swap the first and the last item.",
            "Let the two outer words change places.",
            "Exchange both ends of the list and keep the middle as it is.",
            "Move the last word to the front and the first to the end.",
            "What is the list once its first and last words trade places?",
            "Switch the ends of this list.",
            "Whatever comes first should come last, and the other way round.",
            "Rewrite the words with the beginning and the end exchanged.",
            "Trade the positions of the first and last words.",
            "Swap the words at the two ends.",
        ),
        _on_list(_swap, 3),
        _list_of(4),
        weight=2.0,
        sentences=_say(
            "with its ends swapped, {x} is {y}.", "swap the ends of {x} and you get {y}."
        ),
    ),
    Family(
        "list_join_and",
        "lists",
        (
            "Join the items, with and before the last one.",
            "Write the list as it would stand in a sentence.",
            "Put the word and between the last two items.",
            "Link the final pair of words using and.",
            "How would you say this list in plain English, with and?",
            "Replace the last comma by the word and.",
            "Turn these items into a phrase that ends with and plus the last word.",
            "Connect the words using commas and one and.",
            "Add and to the list where the last comma is.",
            "Make a phrase from the items, with and near the end.",
        ),
        _on_list(_join_and),
        _list_of(3),
        sentences=_say("we saw {y}.", "the list {x} is said as {y}.", "there were {y}."),
    ),
    Family(
        "list_separator",
        "lists",
        (
            "Use {mark} instead of commas in the list.",
            "Separate the items with {mark}.",
            "Change every comma to {mark}.",
            "Put {mark} between the words.",
            "How does the list look when {mark} divide its items?",
            "Rewrite the list so that {mark} stand where the commas are.",
            "Replace the commas by {mark}.",
            "The words should be split by {mark}; write them that way.",
            "Write this list with {mark} between its items.",
            "No commas, please: set the words apart with {mark}.",
        ),
        _on_list(lambda s, f: _MARKS[s["mark"]].join(f)),
        _list_of(3, 4),
        {"mark": tuple(_MARKS)},
        sentences=_say("with {mark}, {x} is written {y}.", "using {mark}, {x} is {y}."),
    ),
    Family(
        "list_odd_one_out",
        "groups",
        (
            "Which word is the odd one out?",
            "Find the item that does not belong.",
            "Three of these are alike. Name the one that is not.",
            "One thing does not fit with the rest. What is it?",
            "Spot the word from a different category.",
            "Tell me which item is unlike the other three.",
            "Pick the stranger among the four words.",
            "What should be taken out so that the rest match?",
            "Which entry is out of place in this group?",
            "Which of the four words is of another kind?",
        ),
        _odd_one,
        _odd_one_input,
        weight=2.0,
        sentences=_say(
            "among {x}, the odd one out is {y}.", "in {x}, the word {y} does not belong."
        ),
    ),
    Family(
        "list_find_category",
        "groups",
        (
            "Find the {category} in the list.",
            "Which of these words is the name of a kind of {category}?",
            "Pick out the only {category}.",
            "One item is of the type {category}. Write it.",
            "Where is the {category}? Copy it.",
            "Among the words, spot the one {category}.",
            "Tell me which thing counts as {category}.",
            "Look for the {category} and leave the others.",
            "Name the {category} that is listed.",
            "Which item is the {category}?",
        ),
        _find,
        _find_input,
        {"category": _FINDABLE},
        weight=1.5,
        sentences=_say(
            "the {category} in {x} is {y}.", "of {x}, only {y} is of the type {category}."
        ),
    ),
    Family(
        "list_contains",
        "groups",
        (
            "Does the list contain {word}? Answer yes or no.",
            "Is {word} one of the items? Say yes or no.",
            "Can you find the word {word} here, yes or no?",
            "Reply yes if {word} is listed and no if it is missing.",
            "Search the items for {word}, then write yes or no.",
            "Yes or no: has somebody put {word} in this list?",
            "Look for {word}. If you see it say yes, otherwise no.",
            "Decide whether {word} appears among the words: yes or no.",
            "Tell me, yes or no, if {word} was mentioned.",
            "Say yes when the items include {word}, or else no.",
        ),
        _on_list(_contains),
        _contains_input,
        {"word": _SLOT_WORDS},
        lambda slots: _YES_NO,
        weight=1.5,
        sentences=lambda rng, slots, text, answer: lex.capitalized(
            f"the list {text} {'contains' if answer == 'yes' else 'does not contain'} "
            f"{slots['word']}."
        ),
    ),
    Family(
        "word_repeat",
        "lists",
        (
            "Repeat the word {n} times.",
            "Write this word {n} times in a row.",
            "Say it {n} times, one after another.",
            "Copy the given word until it is there {n} times.",
            "What do you get by writing the word {n} times over?",
            "Make a line with {n} copies of the word.",
            "I want to see the same word {n} times.",
            "Echo what is given, {n} times in all.",
            "Fill a line by printing the word {n} times.",
            "Given a word, produce {n} copies of it.",
        ),
        _repeat,
        lambda rng, slots: rng.choice(_LOWER),
        {"n": tuple(_TIMES)},
        sentences=_say("the word {x} said {n} times is {y}.", "{n} times {x} makes {y}."),
    ),
    Family(
        "list_add_item",
        "lists",
        (
            "Add {word} at the {where} of the list.",
            "Put the word {word} at the {where}.",
            "The list needs {word} at its {where}; write it again.",
            "With {word} as a new item at the {where}, what is the list?",
            "Extend these words by {word}, placed at the {where}.",
            "Insert {word}. It belongs at the {where}.",
            "At the {where}, please place {word}.",
            "Make the list longer: {word} should stand at the {where}.",
            "Give the same items again, plus {word} at the {where}.",
            "Now {word} joins these words at the {where}. Show the result.",
        ),
        _on_list(_add),
        _list_of(2, 3),
        {"word": _SLOT_WORDS, "where": ("front", "end")},
        weight=1.5,
        sentences=_say(
            "with {word} at the {where}, {x} becomes {y}.",
            "put {word} at the {where} of {x} to get {y}.",
        ),
    ),
    Family(
        "list_replace_item",
        "lists",
        (
            "Replace the {which} item with {word}.",
            "Change the {which} word to {word}.",
            "Put {word} where the {which} item is now.",
            "Write the list again, but let {word} be the {which} item.",
            "Take out the {which} thing and set {word} in its place.",
            "What is the list if {word} takes the {which} place?",
            "Swap {word} in for the {which} entry.",
            "Use {word} instead of the {which} word of the list.",
            "Let {word} stand in place of the {which} item.",
            "The {which} word is wrong and should be {word}; correct the list.",
        ),
        _on_list(_replace, 3),
        _list_of(3),
        {"word": _SLOT_WORDS, "which": _ORDINALS},
        weight=2.0,
        sentences=_say(
            "with {word} as the {which} item, {x} becomes {y}.",
            "put {word} in the {which} place of {x} and you get {y}.",
        ),
    ),
    Family(
        "lists_common",
        "lists",
        (
            "Which item is in both lists?",
            "Find the word that the two lists share.",
            "Name the one thing that appears twice, before and after the semicolon.",
            "What do the two groups have in common?",
            "Compare the lists and write the item they share.",
            "Tell me the word that was listed two times.",
            "One item belongs to each of the lists. Copy it.",
            "Look on both sides of the semicolon for the same word.",
            "Write the word found in both lists.",
            "What is the common item of these two groups?",
        ),
        _common,
        _common_input,
        weight=2.0,
        sentences=_say("the lists {x} share {y}.", "in {x}, both lists have {y}."),
    ),
    Family(
        "lists_same",
        "lists",
        (
            "Are the two lists the same or different?",
            "Compare both lists and answer same or different.",
            "Say same if nothing changes after the semicolon, or else different.",
            "Is the second group different from the first, or the same?",
            "Label the pair of lists as same or different.",
            "Check whether the left and right items match: same or different.",
            "Two lists are given. If they agree write same, if not write different.",
            "Decide: same words on each side, or different ones?",
            "Would you call these lists same or different?",
            "Judge if both rows hold equal words: same or different.",
        ),
        _same,
        _same_input,
        labels=lambda slots: ("same", "different"),
        weight=1.5,
        sentences=_say("the lists {x} are {y}.", "the two groups {x} are {y}."),
    ),
    Family(
        "list_is_sorted",
        "sorting",
        (
            "Is the list sorted from small to large? Answer yes or no.",
            "Do the numbers keep rising, yes or no?",
            "Check if the values are in ascending order and say yes or no.",
            "Reply yes if every number is larger than the one before, otherwise no.",
            "Yes or no: does this list go up all the way?",
            "Say no when a number is smaller than its left neighbour, else yes.",
            "Are these three in order, smallest first? Yes or no.",
            "Decide with yes or no whether the numbers only grow.",
            "Is it true that the numbers are sorted upwards? Yes or no.",
            "Tell me, yes or no, if the list is in rising order.",
        ),
        _is_sorted,
        _is_sorted_input,
        labels=lambda slots: _YES_NO,
        weight=1.5,
        sentences=lambda rng, slots, text, answer: (
            f"The numbers {text} are {'' if answer == 'yes' else 'not '}in "
            f"{rng.choice(('rising', 'ascending'))} order."
        ),
    ),
)
