"""The rules of the house, as a program that chooses among answers.

An order is noted as one line of JSON. Named in ``generation.instances.chooser_program``, the rules
keep an answer that the model wrote only if it notes the order that it answers.
"""

from __future__ import annotations

import json
import re

_NUMBERS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_ALSO = {1: ("a", "an"), 12: ("a dozen", "one dozen")}
_NO_ENDS = re.compile(
    r"(?:and|at|by|for|from|of|on|please|the|to|until|with|more|less|today|tomorrow"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)day)(?:\b.*|)",
    re.IGNORECASE,
)
"""How no item begins; nor does its last word."""
_GOES_ON = re.compile(
    r"\s*(?:[^\w\s'-]|$)"
    r"|\s+(?:about|after|again|already|and|are|as|aside|at|be|because|before|but|by|did|do|does|early|each|for|from"
    r"|had|has|have|here|if|in|instead|is|it|left|like|more|no|of|off|on|or|over|please|ready|said|set|since|so"
    r"|sound|than|that|then|there|therefore|this|to|today|tomorrow|tonight|too|until|up|waiting|was|were"
    r"|when|while|will|would|(?:mon|tues|wednes|thurs|fri|satur|sun)day)\b",
    re.IGNORECASE,
)
"""What may follow an item: of "22 cheese sandwiches" the cheese is not what was ordered."""


def score(instruction: str, input: str, output: str) -> bool:
    """Whether the output notes the order that stands after the instruction's colon."""
    order = instruction.partition(":")[2]
    try:
        note = json.loads(output)
    except ValueError:
        return False
    # Rule 1: one JSON object on one line. Rule 2: these keys in this order, and no others.
    if "\n" in output.strip() or not isinstance(note, dict) or tuple(note) != ("item", "quantity"):
        return False
    item, quantity = note["item"], note["quantity"]
    if not isinstance(item, str) or not item.strip() or type(quantity) is not int or quantity < 1:
        return False
    # Rules 3 and 4: the customer's words after a number, and that number in digits.
    said = (str(quantity), *_NUMBERS[quantity - 1 : quantity], *_ALSO.get(quantity, ()))
    stands = rf"(?<![\w.,-])(?:{'|'.join(said)}) {re.escape(item)}(?![\w'-])"
    if any(map(_NO_ENDS.fullmatch, (item, item.split()[-1]))):
        return False
    found = re.finditer(stands, order, re.IGNORECASE)
    return any(_GOES_ON.match(order, place.end()) for place in found)
