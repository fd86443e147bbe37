"""Families about small numbers: sums, comparisons, sequences, short stories and the clock."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from selfinstruct_train.microworld import lexicon as lex
from selfinstruct_train.microworld.world import Family, Slots

_SINGULAR = {lex.plural(word): word for word in lex.THINGS}
_EDIBLE = tuple(lex.plural(word) for word in lex.FRUITS)
_STEPS = (1, 2, 5, 10)
_GAINS = ("gets", "buys", "finds")
_LOSSES = ("loses", "sells", "gives away")
_LEAVERS = ("bus", "train", "boat", "ship", "plane", "tram", *lex.NAMES)

Answers = Callable[[Slots, str], tuple[str, ...]]


def _ints(pattern: str, text: str) -> tuple[int, ...]:
    """The numbers that a pattern captures from the whole text; empty if it does not match."""
    match = re.fullmatch(pattern, text.strip(), re.ASCII)
    return tuple(map(int, match.groups())) if match else ()


def _amount(number: int, things: str) -> str:
    return f"{number} {_SINGULAR[things] if number == 1 else things}"


def _parse_amount(text: str) -> tuple[int, str] | None:
    match = re.fullmatch(r"(\d{1,3}) ([a-z]+)", text.strip(), re.ASCII)
    if match is None:
        return None
    number, noun = int(match[1]), match[2]
    things = lex.plural(noun) if noun in lex.THINGS and number == 1 else noun
    good = things in _SINGULAR and _amount(number, things) == f"{match[1]} {noun}"
    return (number, things) if good else None


def _things(low: int, high: int) -> Callable[[random.Random, Slots], str]:
    return lambda rng, slots: _amount(rng.randint(low, high), rng.choice(tuple(_SINGULAR)))


def _on_amount(rule: Callable[[Slots, int], int]) -> Answers:
    """Answers that change the number of some things and keep the things."""

    def answers(slots: Slots, text: str) -> tuple[str, ...]:
        found = _parse_amount(text)
        result = rule(slots, found[0]) if found else -1
        return (_amount(result, found[1]), str(result)) if found and result >= 0 else ()

    return answers


def _say(*templates: str) -> Callable[[random.Random, Slots, str, str], str]:
    """Sentences from templates with the slots, ``{x}`` for the input and ``{y}`` for the answer."""

    def sentence(rng: random.Random, slots: Slots, text: str, answer: str) -> str:
        said = rng.choice(templates).format(**slots, x=text.strip(), y=answer)
        return lex.capitalized(said)

    return sentence


def _add(slots: Slots, text: str) -> tuple[str, ...]:
    found = _ints(r"(\d{1,2}) (?:\+|plus) (\d{1,2})", text)
    return (str(sum(found)),) if found else ()


def _add_input(rng: random.Random, slots: Slots) -> str:
    left = rng.randint(0, 20)
    return f"{left} {rng.choice(('+', 'plus'))} {rng.randint(0, 20 - left)}"


def _subtract(slots: Slots, text: str) -> tuple[str, ...]:
    found = _ints(r"(\d{1,2}) (?:-|minus) (\d{1,2})", text)
    return (str(found[0] - found[1]),) if found and found[0] >= found[1] else ()


def _subtract_input(rng: random.Random, slots: Slots) -> str:
    left = rng.randint(1, 20)
    return f"{left} {rng.choice(('-', 'minus'))} {rng.randint(0, left)}"


def _step(slots: Slots, number: int) -> int:
    return number + (1 if slots["which"] == "more" else -1)


def _three(text: str) -> tuple[int, ...]:
    found = _ints(r"(\d{1,2}), ?(\d{1,2}), ?(\d{1,2})", text)
    return found if len(set(found)) == 3 else ()


def _three_input(rng: random.Random, slots: Slots) -> str:
    return ", ".join(map(str, rng.sample(range(21), 3)))


def _extreme(pick: Callable[[tuple[int, ...]], int]) -> Answers:
    def answers(slots: Slots, text: str) -> tuple[str, ...]:
        found = _three(text)
        return (str(pick(found)),) if found else ()

    return answers


def _parity(slots: Slots, text: str) -> tuple[str, ...]:
    found = _parse_amount(text)
    return ("odd" if found[0] % 2 else "even",) if found else ()


def _compare(slots: Slots, text: str) -> tuple[str, ...]:
    found = _ints(r"(\d{1,2}) and (\d{1,2})", text)
    if not found:
        return ()
    left, right = found
    return ("bigger" if left > right else "smaller" if left < right else "equal",)


def _compare_input(rng: random.Random, slots: Slots) -> str:
    low, high = sorted(rng.sample(range(51), 2))
    left, right = rng.choice(((low, high), (high, low), (low, low)))
    return f"{left} and {right}"


def _compare_sentence(rng: random.Random, slots: Slots, text: str, answer: str) -> str:
    left, right = text.strip().split(" and ")
    return f"{left} is {answer} {'to' if answer == 'equal' else 'than'} {right}."


def _sequence(slots: Slots, text: str) -> tuple[str, ...]:
    parts = lex.items(text)
    if not 3 <= len(parts) <= 4 or not all(re.fullmatch(r"\d{1,2}", p, re.ASCII) for p in parts):
        return ()
    values = [int(part) for part in parts]
    gaps = {b - a for a, b in zip(values, values[1:], strict=False)}
    return (str(values[-1] + min(gaps)),) if len(gaps) == 1 and gaps <= set(_STEPS) else ()


def _sequence_input(rng: random.Random, slots: Slots) -> str:
    step, start = rng.choice(_STEPS), rng.randint(0, 40)
    return ", ".join(str(start + step * i) for i in range(rng.choice((3, 4))))


def _story(verbs: tuple[str, ...], tail: str, sign: int) -> Answers:
    pattern = re.compile(
        rf"(?:{'|'.join(lex.NAMES)}) has (\d{{1,2}}) ([a-z]+)\. "
        rf"(?:He|She) (?:{'|'.join(verbs)}) (\d{{1,2}}){tail}\.",
        re.ASCII,
    )

    def answers(slots: Slots, text: str) -> tuple[str, ...]:
        match = pattern.fullmatch(text.strip())
        if match is None or match[2] not in _SINGULAR:
            return ()
        result = int(match[1]) + sign * int(match[3])
        return (_amount(result, match[2]), str(result)) if result >= 0 else ()

    return answers


def _start(rng: random.Random, low: int, things: tuple[str, ...]) -> tuple[int, str, str]:
    name, number = rng.choice(lex.NAMES), rng.randint(low, 12)
    opening = f"{name} has {number} {rng.choice(things)}."
    return number, opening, "She" if name in lex.GIRLS else "He"


def _gain_input(rng: random.Random, slots: Slots) -> str:
    _, opening, who = _start(rng, 2, tuple(_SINGULAR))
    return f"{opening} {who} {rng.choice(_GAINS)} {rng.randint(1, 8)} more."


def _left_input(rng: random.Random, slots: Slots) -> str:
    verb = rng.choice(("eats", *_LOSSES))
    number, opening, who = _start(rng, 3, _EDIBLE if verb == "eats" else tuple(_SINGULAR))
    return f"{opening} {who} {verb} {rng.randint(1, number - 1)}."


def _gain_sentence(rng: random.Random, slots: Slots, text: str, answer: str) -> str:
    return f"{text.strip()} {rng.choice(('That makes', 'Together that is'))} {answer}."


def _left_sentence(rng: random.Random, slots: Slots, text: str, answer: str) -> str:
    verb = "is" if answer.startswith("1 ") else "are"
    return f"{text.strip()} Then {answer} {verb} left."


def _later(slots: Slots, text: str) -> tuple[str, ...]:
    pattern = r"(?:The )?([A-Za-z]+) leaves at (\d{1,2}) o'clock\."
    found = re.fullmatch(pattern, text.strip(), re.ASCII)
    if found is None or found[1] not in _LEAVERS or not 1 <= int(found[2]) <= 12:
        return ()
    hour = (int(found[2]) + lex.NUMBER_WORDS.index(slots["n"]) - 1) % 12 + 1
    return (f"{hour} o'clock", f"at {hour} o'clock", str(hour))


def _later_input(rng: random.Random, slots: Slots) -> str:
    who = rng.choice(_LEAVERS)
    hour = rng.randint(1, 12 - lex.NUMBER_WORDS.index(slots["n"]))
    return f"{'' if who in lex.NAMES else 'The '}{who} leaves at {hour} o'clock."


def _sign(slots: Slots, text: str) -> tuple[str, ...]:
    found = _ints(r"(-?\d{1,3})", text)
    return ("positive" if found[0] > 0 else "negative",) if found and found[0] else ()


def _sign_input(rng: random.Random, slots: Slots) -> str:
    return str(rng.randint(1, 300) * rng.choice((1, -1)))


def _sum_check(slots: Slots, text: str) -> tuple[str, ...]:
    found = _ints(r"(\d{1,2}) \+ (\d{1,2}) = (\d{1,2})", text)
    return ("right" if found[0] + found[1] == found[2] else "wrong",) if found else ()


def _sum_check_input(rng: random.Random, slots: Slots) -> str:
    left, right = rng.randint(0, 10), rng.randint(0, 10)
    wrong = [n for n in range(left + right - 4, left + right + 5) if n >= 0 and n != left + right]
    shown = rng.choice((left + right, rng.choice(wrong)))
    return f"{left} + {right} = {shown}"


def _sum_check_sentence(rng: random.Random, slots: Slots, text: str, answer: str) -> str:
    left, right, shown = text.strip().replace("= ", "").replace("+ ", "").split()
    return f"{left} plus {right} is {'' if answer == 'right' else 'not '}{shown}."


def _above(slots: Slots, text: str) -> tuple[str, ...]:
    found = _parse_amount(text)
    return ("yes" if found[0] > int(slots["n"]) else "no",) if found else ()


def _above_input(rng: random.Random, slots: Slots) -> str:
    limit = int(slots["n"])
    low, high = rng.choice(((0, limit - 1), (limit + 1, 20)))
    return _things(low, high)(rng, slots)


def _between(slots: Slots, text: str) -> tuple[str, ...]:
    found = _ints(r"(\d{1,2}) and (\d{1,2})", text)
    return tuple(map(str, range(found[0] + 1, found[1]))) if found else ()


def _between_input(rng: random.Random, slots: Slots) -> str:
    low = rng.randint(0, 80)
    return f"{low} and {low + rng.randint(2, 5)}"


FAMILIES: tuple[Family, ...] = (
    Family(
        "number_add",
        "numbers",
        (
            "Add the two numbers together.",
            "What is the sum?",
            "Work out this addition.",
            "How much do these make in total?",
            "Calculate the result of adding the second number to the first.",
            "Find the total of both numbers.",
            "Give the answer to the plus problem.",
            "If you put the two values together, what comes out?",
            "Do the addition and write the result.",
            "Tell me what the sum of these numbers is.",
        ),
        _add,
        _add_input,
        weight=2.5,
        sentences=_say("{x} is {y}.", "{x} makes {y}."),
    ),
    Family(
        "number_subtract",
        "numbers",
        (
            "Subtract the second number from the first.",
            "What is the difference?",
            "Work out this minus problem.",
            "How much remains if the right number is taken from the left?",
            "Do the subtraction and tell me the result.",
            "Take away the smaller value. Which number do you get?",
            "Calculate the first number less the second.",
            "Find the difference between these two values.",
            "Solve the subtraction.",
            "Give the result of taking one number from the other.",
        ),
        _subtract,
        _subtract_input,
        weight=2.5,
        sentences=_say("{x} is {y}.", "{x} leaves {y}."),
    ),
    Family(
        "number_double",
        "numbers",
        (
            "Double the number of things.",
            "What is twice as many?",
            "Multiply the amount by two.",
            "How many would there be if you had two such groups?",
            "Give the amount times 2.",
            "Make it two times as much.",
            "Write down the double of this amount.",
            "Someone wants double what is given. How much is that?",
            "Tell me what twice this amount is.",
            "Take the quantity two times and give the total.",
        ),
        _on_amount(lambda slots, n: 2 * n),
        _things(1, 10),
        weight=1.5,
        sentences=_say("twice {x} is {y}.", "double {x} and you have {y}."),
    ),
    Family(
        "number_one_step",
        "numbers",
        (
            "What is one {which} than this amount?",
            "Change the amount so that there is one {which}.",
            "Give one {which}.",
            "Say how many there are if we have 1 {which}.",
            "Write the same things, but 1 {which} of them.",
            "Count the things again with one {which} in the group.",
            "Somebody asks for one {which} than shown. Give that number.",
            "With exactly one {which}, how much is it?",
            "Tell me the amount that is one {which}.",
            "How many would one {which} be?",
        ),
        _on_amount(_step),
        _things(2, 20),
        {"which": ("more", "less")},
        weight=1.5,
        sentences=_say("one {which} than {x} is {y}.", "{x} and one {which} is {y}."),
    ),
    Family(
        "number_n_more",
        "numbers",
        (
            "What is {n} more than this amount?",
            "Add {n} to the number of things.",
            "Increase the amount by {n}.",
            "If {n} further ones come, how many are there?",
            "Put {n} extra with these and give the new total.",
            "Raise this number by {n}.",
            "How many do we have after {n} others join them?",
            "Make the group larger by {n} and write its size.",
            "Count {n} on from the given amount.",
            "Give the amount that you get by adding {n}.",
        ),
        _on_amount(lambda slots, n: n + int(slots["n"])),
        _things(1, 12),
        {"n": ("2", "3", "4", "5", "6", "7")},
        weight=2.0,
        sentences=_say("{n} more than {x} is {y}.", "add {n} to {x} and you have {y}."),
    ),
    Family(
        "number_largest",
        "numbers",
        (
            "Which number is the largest?",
            "Find the biggest of the three.",
            "Write down the greatest value.",
            "Of these, pick the number that is higher than the others.",
            "Give the maximum of the list.",
            "Name the top number here.",
            "Tell me which of these numbers has the most.",
            "Keep only the highest value in the list.",
            "What is the largest of these three numbers?",
            "Choose the number that beats both others in size.",
        ),
        _extreme(max),
        _three_input,
        weight=1.5,
        sentences=_say("the largest of {x} is {y}.", "of {x}, the biggest is {y}."),
    ),
    Family(
        "number_smallest",
        "numbers",
        (
            "Which number is the smallest?",
            "Find the least of the three.",
            "Write down the lowest value.",
            "Of these, pick the number that is less than the others.",
            "Give the minimum of the list.",
            "Name the bottom number here.",
            "Tell me which of these numbers counts for the least.",
            "Keep only the smallest value in the list.",
            "What is the smallest of these three numbers?",
            "Choose the number that is below both others in size.",
        ),
        _extreme(min),
        _three_input,
        weight=1.5,
        reserved=True,
        sentences=_say("the smallest of {x} is {y}.", "of {x}, the least is {y}."),
    ),
    Family(
        "number_parity",
        "numbers",
        (
            "Is the number of things even or odd?",
            "Say whether this amount is odd or even.",
            "Even or odd: what kind of number is shown?",
            "Label the amount as even or odd.",
            "If two people can share them equally say even, otherwise odd.",
            "Look at the number and answer odd or even.",
            "Can the things be put in pairs? Write even if so, or else odd.",
            "Tell whether you see an even or an odd number.",
            "Decide if the count is even or odd.",
            "Which is it, an odd amount or an even one?",
        ),
        _parity,
        _things(1, 20),
        labels=lambda slots: ("even", "odd"),
        weight=1.5,
        sentences=lambda rng, slots, text, answer: (
            f"{text.split()[0]} is an {answer} number, so {text.strip()} is an {answer} amount."
        ),
    ),
    Family(
        "number_compare",
        "comparison",
        (
            "Is the first number bigger than, smaller than or equal to the second?",
            "Compare the numbers: bigger, smaller or equal?",
            "Say bigger, smaller or equal for the left number.",
            "How does the first value stand to the other: equal, bigger or smaller?",
            "Label the first of the two as bigger, equal or smaller.",
            "Write equal if both match; else tell if the first is bigger or smaller.",
            "Next to the right number, is the left one smaller, bigger or equal?",
            "Choose one word, bigger, smaller or equal, to compare these two.",
            "Tell me if the first number is bigger, smaller or equal.",
            "Bigger, smaller or equal: which word fits the first number?",
        ),
        _compare,
        _compare_input,
        labels=lambda slots: ("bigger", "smaller", "equal"),
        weight=2.0,
        sentences=_compare_sentence,
    ),
    Family(
        "number_next",
        "numbers",
        (
            "What number comes next?",
            "Continue the sequence by one number.",
            "Find the next value in this row.",
            "The numbers grow by equal steps. Which one follows?",
            "Write the number that should come after the last one.",
            "See how the row goes on and give one more number.",
            "Complete the pattern.",
            "Count on in the same way: what is next?",
            "Give the next number of the sequence.",
            "Which number follows in this pattern?",
        ),
        _sequence,
        _sequence_input,
        weight=2.0,
        sentences=_say("after {x} comes {y}.", "count on: {x}, {y}."),
    ),
    Family(
        "story_gain",
        "stories",
        (
            "How many are there in total?",
            "Solve the little story: how many now?",
            "Add up what the person has at the end.",
            "Read the text and work out the new amount.",
            "How much does this person own after getting more?",
            "Find out how many things the story ends with.",
            "Count everything, old and new, and give the sum.",
            "What is the total after the second sentence?",
            "Work out how many the person has now altogether.",
            "Tell me the total number of things in the story.",
        ),
        _story(_GAINS, " more", 1),
        _gain_input,
        weight=2.0,
        sentences=_gain_sentence,
    ),
    Family(
        "story_left",
        "stories",
        (
            "How many are left?",
            "Work out what remains at the end.",
            "Solve this short problem: how many are still there?",
            "Read the story and tell how much the person keeps.",
            "Find the number of things that stay.",
            "After this, what does he or she still have?",
            "Some are gone now. Give the amount that remains.",
            "Take away what is gone and write the rest.",
            "How many things does the person have left?",
            "Tell me what is left at the end of the story.",
        ),
        _story(("eats", *_LOSSES), "", -1),
        _left_input,
        weight=2.0,
        sentences=_left_sentence,
    ),
    Family(
        "clock_later",
        "time",
        (
            "What time is it {n} hours later?",
            "Give the time {n} hours after that.",
            "Move the clock on by {n} hours.",
            "The trip takes {n} hours. When does it end?",
            "If {n} hours go by after leaving, what does the clock say?",
            "Add {n} hours to the given time.",
            "Someone arrives after {n} hours. At what time is that?",
            "Say which hour it is once {n} hours have passed.",
            "Tell me the time when {n} hours are over.",
            "There is a delay of {n} hours. What is the new time?",
        ),
        _later,
        _later_input,
        {"n": ("two", "three", "four", "five")},
        weight=1.5,
        sentences=_say("{x} In {n} hours it is {y}.", "{x} Add {n} hours and it is {y}."),
    ),
    Family(
        "number_sign",
        "numbers",
        (
            "Is the number positive or negative?",
            "Say negative if it is below zero and positive if it is above.",
            "Positive or negative: which fits?",
            "Label this number as negative or positive.",
            "Look for a minus sign, then answer positive or negative.",
            "On which side of zero is it? Write positive or negative.",
            "Tell me the sign of the value, negative or positive.",
            "Would you call this a positive number or a negative one?",
            "Decide whether the value is positive or negative.",
            "Does it lie under zero? Answer negative if so, otherwise positive.",
        ),
        _sign,
        _sign_input,
        labels=lambda slots: ("positive", "negative"),
        sentences=_say("the number {x} is {y}.", "we call {x} a {y} number."),
    ),
    Family(
        "number_sum_check",
        "checks",
        (
            "Is the sum right or wrong?",
            "Check this addition and answer right or wrong.",
            "A child wrote this. Mark it as right or wrong.",
            "Say right if the total is true and wrong if it is not.",
            "Does the result on the right side fit? Write right or wrong.",
            "Right or wrong: do these numbers add up?",
            "Be the teacher and label the calculation wrong or right.",
            "Look for a mistake; reply wrong if there is one, else right.",
            "Decide whether the addition is wrong or right.",
            "Tell me if this sum was done right or wrong.",
        ),
        _sum_check,
        _sum_check_input,
        labels=lambda slots: ("right", "wrong"),
        weight=2.0,
        sentences=_sum_check_sentence,
    ),
    Family(
        "number_above",
        "comparison",
        (
            "Is the number above {n}? Answer yes or no.",
            "Are there more than {n} of them, yes or no?",
            "Say yes if the amount is over {n} and no if it is under.",
            "Yes or no: does the count pass {n}?",
            "Compare the amount with {n}; write yes when it is larger, otherwise no.",
            "Check if we have more things than {n}. Reply yes or no.",
            "The limit is {n}. Is it exceeded, yes or no?",
            "Decide with yes or no whether this is greater than {n}.",
            "Does the amount go beyond {n}? Yes or no.",
            "Tell me, yes or no, if the number is higher than {n}.",
        ),
        _above,
        _above_input,
        {"n": ("5", "7", "8", "10", "12", "15")},
        lambda slots: ("yes", "no"),
        weight=1.5,
        sentences=lambda rng, slots, text, answer: (
            f"{text.split()[0]} is {'more' if answer == 'yes' else 'less'} than {slots['n']}."
        ),
    ),
    Family(
        "number_between",
        "numbers",
        (
            "Name a whole number between the two.",
            "Which number could stand in the middle?",
            "Give any value that is larger than the first and smaller than the second.",
            "Find a number that lies between these.",
            "Write one whole number from the gap.",
            "Choose something higher than the left number but lower than the right one.",
            "What comes after the first number and before the second?",
            "Fill the gap using one number.",
            "Tell me one number in between.",
            "Pick a whole number that falls between the numbers given.",
        ),
        _between,
        _between_input,
        sentences=_say("between {x} is {y}.", "the number {y} lies between {x}."),
    ),
)
