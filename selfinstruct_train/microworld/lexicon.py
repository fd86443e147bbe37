"""The words of the microworld, few enough for a tiny model to know them all.

Families draw on these lists wherever they can: every further word costs the model capacity.
"""

from __future__ import annotations

GIRLS = ("Anna", "Mia", "Ella", "Lucy", "Nora", "Rosa", "Ruth", "Tina", "Vera", "Zoe")
BOYS = ("Adam", "Ben", "Carl", "Dan", "Finn", "Hugo", "Jack", "Leo", "Max", "Tom")
NAMES = GIRLS + BOYS

COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink", "grey", "orange")

ANIMALS = (
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
    "duck",
    "owl",
    "eagle",
    "shark",
    "whale",
    "bee",
    "ant",
    "spider",
)
FRUITS = ("apple", "banana", "cherry", "grape", "lemon", "melon", "peach", "pear", "plum", "mango")
VEGETABLES = (
    "carrot",
    "potato",
    "onion",
    "bean",
    "pea",
    "leek",
    "radish",
    "cabbage",
    "pumpkin",
    "turnip",
)
FOODS = ("bread", "cake", "cheese", "soup", "rice", "pasta", "pizza", "salad", "honey", "butter")
DRINKS = ("water", "milk", "tea", "coffee", "juice", "lemonade", "cocoa", "cola")
TOOLS = ("hammer", "saw", "drill", "shovel", "axe", "knife", "brush", "ladder", "rope", "nail")
CLOTHES = ("hat", "coat", "shirt", "shoe", "sock", "scarf", "glove", "dress", "belt", "boot")
FURNITURE = ("table", "chair", "bed", "desk", "lamp", "shelf", "sofa", "stool", "bench", "cupboard")
VEHICLES = ("car", "bus", "train", "bike", "boat", "ship", "plane", "truck", "tram", "van")
BODY = ("hand", "foot", "head", "nose", "ear", "eye", "arm", "leg", "knee", "back")
INSTRUMENTS = ("piano", "guitar", "drum", "flute", "violin", "trumpet", "harp", "horn")
TOYS = ("ball", "doll", "kite", "puzzle", "robot", "marble", "swing", "balloon")
JOBS = (
    "baker",
    "doctor",
    "farmer",
    "teacher",
    "pilot",
    "painter",
    "singer",
    "driver",
    "cook",
    "nurse",
)
PLACES = (
    "park",
    "school",
    "kitchen",
    "garden",
    "shop",
    "forest",
    "beach",
    "farm",
    "library",
    "station",
)

CATEGORIES = {
    "animal": ANIMALS,
    "fruit": FRUITS,
    "vegetable": VEGETABLES,
    "food": FOODS,
    "drink": DRINKS,
    "tool": TOOLS,
    "garment": CLOTHES,
    "vehicle": VEHICLES,
    "colour": COLOURS,
    "instrument": INSTRUMENTS,
    "toy": TOYS,
    "job": JOBS,
    "place": PLACES,
}
"""Category -> its members; no word has two categories except the colour orange."""

THINGS = FRUITS + VEGETABLES + TOOLS + CLOTHES + FURNITURE + VEHICLES + INSTRUMENTS + TOYS
"""Countable things that one can hold, see or own; each has a regular or listed plural."""

NUMBER_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

OPPOSITES = (
    ("hot", "cold"),
    ("big", "small"),
    ("old", "new"),
    ("fast", "slow"),
    ("happy", "sad"),
    ("clean", "dirty"),
    ("strong", "weak"),
    ("hard", "soft"),
    ("heavy", "light"),
    ("wet", "dry"),
    ("loud", "quiet"),
    ("rich", "poor"),
    ("full", "empty"),
    ("tall", "short"),
    ("wide", "narrow"),
    ("good", "bad"),
    ("early", "late"),
    ("near", "far"),
    ("bright", "dark"),
    ("open", "closed"),
)
SYNONYMS = (
    ("big", "large"),
    ("small", "little"),
    ("fast", "quick"),
    ("happy", "glad"),
    ("begin", "start"),
    ("end", "finish"),
    ("smart", "clever"),
    ("shut", "close"),
    ("ill", "sick"),
    ("rich", "wealthy"),
    ("quiet", "silent"),
    ("scared", "afraid"),
    ("angry", "mad"),
    ("shout", "yell"),
    ("jump", "leap"),
    ("pretty", "lovely"),
)
VERBS = {
    "walk": "walked",
    "play": "played",
    "jump": "jumped",
    "cook": "cooked",
    "paint": "painted",
    "open": "opened",
    "wash": "washed",
    "help": "helped",
    "eat": "ate",
    "drink": "drank",
    "see": "saw",
    "take": "took",
    "give": "gave",
    "find": "found",
    "make": "made",
    "write": "wrote",
    "buy": "bought",
    "sing": "sang",
    "run": "ran",
    "sell": "sold",
}
"""Present tense -> past tense."""

CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Germany": "Berlin",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Greece": "Athens",
    "Peru": "Lima",
    "Cuba": "Havana",
    "Norway": "Oslo",
    "Kenya": "Nairobi",
    "Ireland": "Dublin",
    "Portugal": "Lisbon",
    "Austria": "Vienna",
    "Poland": "Warsaw",
    "Russia": "Moscow",
}
SPANISH = {
    "cat": "gato",
    "dog": "perro",
    "horse": "caballo",
    "cow": "vaca",
    "bread": "pan",
    "water": "agua",
    "milk": "leche",
    "house": "casa",
    "book": "libro",
    "table": "mesa",
    "red": "rojo",
    "blue": "azul",
    "green": "verde",
    "black": "negro",
    "white": "blanco",
    "big": "grande",
    "small": "chico",
    "hand": "mano",
    "sun": "sol",
    "moon": "luna",
    "friend": "amigo",
    "school": "escuela",
    "apple": "manzana",
    "fish": "pescado",
}


def plural(noun: str) -> str:
    """The plural of a noun of the microworld."""
    irregular = {
        "foot": "feet",
        "wolf": "wolves",
        "shelf": "shelves",
        "scarf": "scarves",
        "knife": "knives",
    }
    if noun in irregular:
        return irregular[noun]
    if noun.endswith(("s", "sh", "ch", "x")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun in ("potato", "mango") else "s")


def article(noun: str) -> str:
    """The noun with its indefinite article."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def capitalized(text: str) -> str:
    """The text with its first letter in upper case and the rest untouched."""
    return text[:1].upper() + text[1:]


def items(text: str) -> tuple[str, ...]:
    """The items of a list written as ``a, b, c``; empty if any of them is blank."""
    parts = tuple(part.strip() for part in text.split(","))
    return parts if all(parts) else ()
