"""Families that read a very short story, a note or a comparison and take something out of it.

Nearly all stories have one grammar, regular enough for a tiny model to write them itself:
``Anna went to the park[ with Tom][ on Monday]. She saw|found|bought a red kite.[ She was happy.]``
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable

from selfinstruct_train.microworld import lexicon as lex
from selfinstruct_train.microworld.world import Family, Slots

Answers = Callable[[Slots, str], tuple[str, ...]]
Sampler = Callable[[random.Random, Slots], str]
Drill = Callable[[random.Random, Slots, str, str], str]

_OUTDOORS = ("park", "garden", "forest", "beach", "farm")
_INDOORS = ("school", "kitchen", "shop", "library")
_THINGS = (*lex.TOYS, *lex.CLOTHES)
_MOODS = ("happy", "sad", "angry", "tired", "hungry", "proud")
# What happens at the end -> how that ending is.
_ENDS = {
    "smiled": "happy", "laughed": "happy", "sang": "happy", "got a present": "happy",
    "cried": "sad", "got sick": "sad", "fell down": "sad", "lost it": "sad",
}  # fmt: skip


def _any(words: Iterable[str]) -> str:
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_NAME, _DAY, _COLOUR = _any(lex.NAMES), _any(lex.DAYS), _any(lex.COLOURS)
_PLACE = _any(lex.PLACES)
_NOUN = _any((*lex.THINGS, *lex.ANIMALS))
_SEEN = rf"(?P<thing>an? (?P<colour>{_COLOUR}) (?P<noun>{_NOUN}))"
_STORY = re.compile(
    rf"(?P<who>{_NAME}) went to the (?P<place>{_PLACE})"
    rf"(?: with (?P<mate>{_NAME}))?(?: on {_DAY})?\. "
    rf"(?P<they>He|She) (?:saw|found|bought) {_SEEN}\."
    rf"(?: (?P<they2>He|She) was (?P<mood>{_any(_MOODS)})\.)?"
    rf"(?: In the end (?P<they3>he|she) (?P<end>{_any(_ENDS)})\.)?"
)
_WHY = re.compile(
    rf"(?P<who>{_NAME}) went to the {_PLACE}\. (?P<they>He|She) was (?P<mood>{_any(_MOODS)}) "
    rf"because (?P<they2>he|she) (?P<did>(?:saw|found|bought|lost|broke) {_SEEN})\."
)


def _they(name: str) -> str:
    return "She" if name in lex.GIRLS else "He"


def _read(form: re.Pattern[str], text: str) -> dict[str, str] | None:
    """The parts of a story whose pronouns and article are right."""
    if not (match := form.fullmatch(text.strip())):
        return None
    parts = {key: part for key, part in match.groupdict().items() if part}
    said = {part.capitalize() for key, part in parts.items() if key.startswith("they")}
    right = said <= {_they(parts["who"])} and parts["who"] != parts.get("mate")
    return parts if right and parts["thing"] == _shown(parts["colour"], parts["noun"]) else None


def _shown(colour: str, noun: str) -> str:
    return f"{lex.article(colour)} {noun}"


def _asked(key: str, also: tuple[str, ...] = ()) -> Answers:
    """Answers with a part of the story; each frame of ``also`` makes another right answer."""

    def answers(slots: Slots, text: str) -> tuple[str, ...]:
        if not (parts := _read(_STORY, text)) or key not in parts:
            return ()
        return tuple(dict.fromkeys(f.format(**parts) for f in ("{" + key + "}", *also)))

    return answers


def _story(
    mate: float = 0.2, day: float = 0.2, mood: float = 0.2, end: float = 0.0, animal: float = 0.3
) -> Sampler:
    """A sampler of stories; the numbers are how often each optional part comes."""

    def sample(rng: random.Random, slots: Slots) -> str:
        who, friend = rng.sample(lex.NAMES, 2)
        places = rng.choice((_OUTDOORS, _INDOORS))
        text = f"{who} went to the {rng.choice(places)}"
        text += f" with {friend}" if rng.random() < mate else ""
        text += f" on {rng.choice(lex.DAYS)}" if rng.random() < day else ""
        if rng.random() < animal:
            verb, noun = "saw", rng.choice(lex.ANIMALS)
        else:
            verb, noun = rng.choice(("saw", "found", "bought")), rng.choice(_THINGS)
        they = _they(who)
        text += f". {they} {verb} {_shown(rng.choice(lex.COLOURS), noun)}."
        text += f" {they} was {rng.choice(_MOODS)}." if rng.random() < mood else ""
        ending = rng.choice(list(_ENDS))
        return text + (f" In the end {they.lower()} {ending}." if rng.random() < end else "")

    return sample


def _says(*frames: str) -> Drill:
    """A drill that fills one of the frames with the input, the answer and the slots."""
    return lambda rng, slots, text, answer: rng.choice(frames).format(i=text, a=answer, **slots)


_object = _asked("thing", also=("{noun}", "the {noun}", "{colour} {noun}", "the {colour} {noun}"))


def _title(slots: Slots, text: str) -> tuple[str, ...]:
    if not (parts := _read(_STORY, text)):
        return ()
    who, place = parts["who"], parts["place"]
    return (f"{who} at the {place}", f"{who} at the {place.capitalize()}", f"{who} at the {place}.")


def _animal(slots: Slots, text: str) -> tuple[str, ...]:
    parts = _read(_STORY, text)
    if not parts or parts["noun"] not in lex.ANIMALS:
        return ()
    noun = parts["noun"]
    return (noun, lex.article(noun), parts["thing"], f"the {noun}")


def _why(slots: Slots, text: str) -> tuple[str, ...]:
    if not (parts := _read(_WHY, text)):
        return ()
    they, did = _they(parts["who"]), parts["did"]
    return (f"because {they.lower()} {did}", f"Because {they.lower()} {did}.", f"{they} {did}.")


def _why_story(rng: random.Random, slots: Slots) -> str:
    who, bad = rng.choice(lex.NAMES), rng.random() < 0.5
    mood = rng.choice(("sad", "angry") if bad else ("happy", "proud"))
    did = rng.choice(("lost", "broke") if bad else ("found", "bought"))
    thing = _shown(rng.choice(lex.COLOURS), rng.choice(_THINGS))
    they = _they(who)
    place = rng.choice(lex.PLACES)
    return f"{who} went to the {place}. {they} was {mood} because {they.lower()} {did} {thing}."


_CAME = re.compile(rf"({_NAME}) came to the {_PLACE} (before|after) ({_NAME})\.")


def _rank(slots: Slots, text: str) -> tuple[str, ...]:
    match = _CAME.fullmatch(text.strip())
    if not match or match[1] == match[3]:
        return ()
    return (match[1] if (match[2] == "before") == (slots["rank"] == "first") else match[3],)


def _arrival(rng: random.Random, slots: Slots) -> str:
    one, two = rng.sample(lex.NAMES, 2)
    return f"{one} came to the {rng.choice(lex.PLACES)} {rng.choice(('before', 'after'))} {two}."


_SCALES = {"older": "younger", "younger": "older", "taller": "shorter", "shorter": "taller"}
_THAN = re.compile(
    rf"({_NAME}) is ({_any(_SCALES)}) than ({_NAME})\. They (?:are at|like) the {_PLACE}\."
)


def _compared(slots: Slots, text: str) -> tuple[str, ...]:
    match = _THAN.fullmatch(text.strip())
    if not match or match[1] == match[3]:
        return ()
    if match[2] == slots["trait"]:
        return (match[1],)
    return (match[3],) if _SCALES[match[2]] == slots["trait"] else ()


def _comparison(rng: random.Random, slots: Slots) -> str:
    one, two = rng.sample(lex.NAMES, 2)
    trait = rng.choice((slots["trait"], _SCALES[slots["trait"]]))
    link = rng.choice(("are at", "like"))
    return f"{one} is {trait} than {two}. They {link} the {rng.choice(lex.PLACES)}."


def _ending(slots: Slots, text: str) -> tuple[str, ...]:
    parts = _read(_STORY, text)
    return (_ENDS[parts["end"]],) if parts and "end" in parts else ()


def _appears(slots: Slots, text: str) -> tuple[str, ...]:
    if not (parts := _read(_STORY, text)):
        return ()
    return ("yes" if slots["name"] in (parts["who"], parts.get("mate")) else "no",)


def _with_or_without(rng: random.Random, slots: Slots) -> str:
    sample, wanted = _story(mate=0.6, day=0.1, mood=0.1), rng.choice(("yes", "no"))
    while _appears(slots, text := sample(rng, slots)) != (wanted,):
        pass
    return text


def _indoors(slots: Slots, text: str) -> tuple[str, ...]:
    parts = _read(_STORY, text)
    if not parts or parts["place"] not in _OUTDOORS + _INDOORS:
        return ()
    return ("outdoors" if parts["place"] in _OUTDOORS else "indoors",)


_MEAL, _BEAST = _any(lex.FOODS + lex.DRINKS), _any(lex.ANIMALS)
_DID = rf"(?:went to the {_PLACE}|(?:ate|drank) the {_MEAL}|saw the {_BEAST})"
_EVENTS = re.compile(
    rf"(?P<who>{_NAME}) ({_DID})\. Then (he|she) ({_DID})\. At last (he|she) ({_DID})\."
)


def _event(slots: Slots, text: str) -> tuple[str, ...]:
    if not (match := _EVENTS.fullmatch(text.strip())):
        return ()
    who, they = match["who"], _they(match["who"])
    if {match[3], match[5]} != {they.lower()}:
        return ()
    did = match[2 if slots["which"] == "first" else 6]
    pair = (f"{who} {did}.", f"{they} {did}.")
    return (*pair, *(x[:-1] for x in pair))


def _events(rng: random.Random, slots: Slots) -> str:
    who = rng.choice(lex.NAMES)
    deeds = [f"went to the {rng.choice(lex.PLACES)}", f"saw the {rng.choice(lex.ANIMALS)}"]
    verb, meals = rng.choice((("ate", lex.FOODS), ("drank", lex.DRINKS)))
    deeds.append(f"{verb} the {rng.choice(meals)}")
    rng.shuffle(deeds)
    they = _they(who).lower()
    return f"{who} {deeds[0]}. Then {they} {deeds[1]}. At last {they} {deeds[2]}."


_GOODS = (*lex.FOODS, *lex.CLOTHES, *lex.TOYS)
_NOTE = re.compile(
    rf"Come on (?P<day>{_DAY})\. The (?:{_any(_GOODS)}) costs (?P<price>(?:1?\d|20) coins)\. "
    rf"Love, (?P<sender>{_NAME})"
)


def _note_part(slots: Slots, text: str) -> tuple[str, ...]:
    if not (match := _NOTE.fullmatch(text.strip())):
        return ()
    part = match[slots["part"]]
    return (part, part.split()[0]) if slots["part"] == "price" else (part,)


def _note(rng: random.Random, slots: Slots) -> str:
    day, name, price = rng.choice(lex.DAYS), rng.choice(lex.NAMES), rng.randint(2, 20)
    return f"Come on {day}. The {rng.choice(_GOODS)} costs {price} coins. Love, {name}"


_ENTRY = re.compile(rf"({_NAME}) (?:was at|is at|went to|works at) the ({_PLACE}) on ({_DAY})\.")


def _form_line(slots: Slots, text: str) -> tuple[str, ...]:
    if not (match := _ENTRY.fullmatch(text.strip())):
        return ()
    field = slots["field"]
    return (f"Name: {match[1]}; {field.capitalize()}: {match[2 if field == 'place' else 3]}",)


def _entry(rng: random.Random, slots: Slots) -> str:
    did, day = rng.choice(("was at", "is at", "went to", "works at")), rng.choice(lex.DAYS)
    return f"{rng.choice(lex.NAMES)} {did} the {rng.choice(lex.PLACES)} on {day}."


_PLURAL_ANIMALS = {lex.plural(noun) for noun in lex.ANIMALS}
_GROUP = rf"(\d|1\d|20) ({_COLOUR}) ({_any(_PLURAL_ANIMALS)})"
_COUNT = re.compile(rf"({_NAME}) saw {_GROUP} on ({_DAY}) and {_GROUP} on ({_DAY})\.")
_PICKS = {"numbers": (2, 6), "colours": (3, 7), "animals": (4, 8), "days": (5, 9)}


def _pick(slots: Slots, text: str) -> tuple[str, ...]:
    if not (match := _COUNT.fullmatch(text.strip())):
        return ()
    one, two = (match[index] for index in _PICKS[slots["kind"]])
    return (f"{one}, {two}", f"{one} and {two}")


def _counts(rng: random.Random, slots: Slots) -> str:
    parts = zip(rng.sample(range(2, 21), 2), rng.sample(lex.COLOURS, 2),
                rng.sample(lex.ANIMALS, 2), rng.sample(lex.DAYS, 2), strict=True)  # fmt: skip
    groups = [f"{n} {colour} {lex.plural(animal)} on {day}" for n, colour, animal, day in parts]
    return f"{rng.choice(lex.NAMES)} saw {' and '.join(groups)}."


FAMILIES: tuple[Family, ...] = (
    Family("story_hero", "reading", (
        "Who is the story about?",
        "Name the main person of this tale.",
        "Give the name of the hero.",
        "Read the lines below and tell me who made the trip.",
        "What is the main character called?",
        "Find the person that everything happens to.",
        "In the text, which child is the most important one?",
        "Write only the name of the one who went out.",
        "Tell who plays the leading part in the short story.",
        "What name does the hero of the text have?",
    ), _asked("who"), _story(mate=0.5), sentences=_says(
        "{i} The story is about {a}.", "{i} The hero is {a}.", "The hero is {a}. {i}")),
    Family("story_place", "reading", (
        "Where did the person in the story go?",
        "Name the place that was visited.",
        "In which place does all this happen?",
        "Find out where we are in this text.",
        "Read the tale and write down the place.",
        "What place is the short trip to?",
        "Tell me where the hero went.",
        "Give the setting of the story below.",
        "Where does the story take place?",
        "Which place did the child visit?",
    ), _asked("place", also=("the {place}", "to the {place}", "at the {place}")), _story(),
        sentences=_says("{i} The place is the {a}.", "{i} It was at the {a}.")),
    Family("story_thing", "reading", (
        "What did the person see, find or buy?",
        "Name the thing in the story with its colour.",
        "Which object comes up in this tale?",
        "Tell me what was seen, bought or found.",
        "Find the object that the hero meets with and copy its words.",
        "Read the text. What thing is it about?",
        "After going there, what did the child come across?",
        "Write down what thing the story speaks of.",
        "Give the object that is in the short text.",
        "What was it that the hero found, saw or bought there?",
    ), _object, _story(animal=0.0), sentences=_says("{i} It was {a}.", "{i} The thing was {a}.")),
    Family("story_colour", "reading", (
        "What colour is the thing in the story?",
        "Find the colour word in this tale.",
        "Name the colour of what the hero saw or got.",
        "Which colour does the text speak of?",
        "Tell me how the object was painted, in one colour word.",
        "Read the story and write only the colour.",
        "If I made that object, what colour would I need?",
        "One colour is named below. Copy it.",
        "Give the colour mentioned in the lines.",
        "Say in what colour the thing comes.",
    ), _asked("colour"), _story(), sentences=_says("{i} The colour is {a}.", "{i} It was {a}.")),
    Family("story_companion", "reading", (
        "With whom did the hero go?",
        "Name the friend who came along.",
        "Who is the second person in the story?",
        "The main person was not alone. Find the other one.",
        "Read this and write who went with the hero.",
        "Which name follows the word with in the tale?",
        "Tell me what companion took part in the trip.",
        "Give only the name of the other child.",
        "Who went along on the trip?",
        "Find the name of the hero's companion in the text.",
    ), _asked("mate"), _story(mate=1.0), sentences=_says(
        "{i} The friend is {a}.", "{i} The other child is {a}.", "{a} came along. {i}")),
    Family("story_animal", "reading", (
        "What animal is in the story?",
        "Name the animal that the hero saw.",
        "Which animal does the text speak of?",
        "Find the animal word in this tale.",
        "Read the lines and write only the animal.",
        "Tell me what beast the child met on the trip.",
        "One animal is named below. Copy its name.",
        "Give the kind of animal mentioned here.",
        "Say which animal comes up in the short story.",
        "What kind of animal was seen there?",
    ), _animal, _story(animal=1.0), reserved=True, sentences=_says("{i} The animal here: {a}.")),
    Family("story_mood", "reading", (
        "How did the person in the story feel?",
        "Name the feeling of the hero.",
        "What mood is the child in?",
        "Find the word for the mood in this tale.",
        "Read the text and tell me the hero's feelings.",
        "In one word, how was he or she at that time?",
        "Give the adjective that says what the child felt.",
        "Copy the one word below that shows a feeling.",
        "Was the hero happy, sad, angry, tired, hungry or proud?",
        "Which feeling does the short story tell us about?",
    ), _asked("mood"), _story(mood=1.0), sentences=_says(
        "{i} The mood is {a}.", "{i} The feeling was {a}.", "The hero was {a}. {i}")),
    Family("story_reason", "reading", (
        "Why did the person feel like that?",
        "Give the reason for the hero's mood.",
        "What is the cause of the feeling in this story?",
        "Explain with because how the mood came about.",
        "Find the part of the text that answers why.",
        "Read the tale and say what made the child feel so.",
        "Copy the reason that starts with the word because.",
        "For what reason was he or she in such a mood?",
        "Tell me why the hero felt this way.",
        "What was the reason that the text gives us?",
    ), _why, _why_story, weight=1.5, sentences=_says("{i} Why? {a}.", "{i} The reason: {a}.")),
    Family("who_came", "reading", (
        "Who came {rank}?",
        "Name the person who was {rank} to come.",
        "Two people came. Which one was {rank}?",
        "Find out whose turn to arrive was {rank}.",
        "Read the line and write the name of the {rank} guest.",
        "If they stand in a row as they came, who stands {rank}?",
        "Give only the one that came in {rank}.",
        "Tell me which of the two did arrive {rank}.",
        "The {rank} one to be there: what is the name?",
        "Say who got to the place {rank}.",
    ), _rank, _arrival, slots={"rank": ("first", "last")}, weight=2.0, sentences=_says(
        "{i} {a} came {rank}.", "{i} So {a} was {rank}.", "{a} came {rank}. {i}")),
    Family("who_is_more", "reading", (
        "Who is {trait}?",
        "Name the {trait} of the two children.",
        "Compare both people and tell me which one is {trait}.",
        "One of them is {trait}. Write that name.",
        "Which person in the text must be {trait} than the other?",
        "Find the {trait} one.",
        "Give the name of the child who is {trait}.",
        "From what you read, whom would you call {trait}?",
        "Of these two friends, who would be the {trait} one?",
        "Say which of the people is {trait}.",
    ), _compared, _comparison, slots={"trait": tuple(_SCALES)}, weight=2.0, sentences=_says(
        "{i} So {a} is {trait}.", "{i} The {trait} one is {a}.", "{a} is the {trait} one. {i}")),
    Family("story_ending", "judging", (
        "Does the story end happy or sad?",
        "What kind of ending is it, sad or happy?",
        "Classify the end of this tale as happy or sad.",
        "Look at the last sentence and choose: happy, sad.",
        "Write happy if all is well at last, and sad if not.",
        "Tell me whether the hero has a sad or a happy end.",
        "Happy or sad: how does it finish?",
        "Judge how things turn out in the text (sad or happy).",
        "Is the ending below a happy or a sad one?",
        "Decide between sad and happy for the way the story stops.",
    ), _ending, _story(mood=0.0, end=1.0), labels=lambda slots: ("happy", "sad"), sentences=_says(
        "{i} The end is {a}.", "{i} That is a {a} story.", "A {a} end: {i}")),
    Family("name_in_story", "judging", (
        "Does {name} appear in the story? Answer yes or no.",
        "Is there a person called {name}? Write yes or no.",
        "Say yes if the text names {name} and no if it does not.",
        "Yes or no: was {name} part of this?",
        "Look for {name} in the tale below and reply with yes or no.",
        "Is {name} one of the people we read about, yes or no?",
        "Can you find the name {name} here? Tell me yes or no.",
        "Check the lines for {name}. Give yes or no.",
        "Decide with yes or no whether the writer speaks of {name}.",
        "Do we meet {name} in these sentences? Say yes or no.",
    ), _appears, _with_or_without, slots={"name": lex.NAMES}, weight=1.5,
        labels=lambda slots: ("yes", "no"), sentences=_says(
            "{i} Is {name} there? {a}.", "{i} Do we meet {name}? {a}.")),
    Family("indoors_or_outdoors", "judging", (
        "Does the story happen indoors or outdoors?",
        "Is the hero outdoors or indoors?",
        "Classify the place of the tale: indoors, outdoors.",
        "Write indoors for a room or house and outdoors for open air.",
        "Would one get wet in the rain there (outdoors) or not (indoors)?",
        "Choose outdoors or indoors for the setting of this text.",
        "Under a roof means indoors, else outdoors. Which is right here?",
        "Tell me if the child is at a place indoors or outdoors.",
        "Indoors or outdoors: where are we in the lines below?",
        "Judge whether it all takes place outdoors or indoors.",
    ), _indoors, _story(), labels=lambda slots: ("indoors", "outdoors"), sentences=_says(
        "{i} That is {a}.", "{i} The hero was {a}.", "We are {a}. {i}")),
    Family("story_event", "reading", (
        "What happened {which} in the story?",
        "Write the {which} thing that the hero did.",
        "Copy the {which} event of this tale.",
        "Three things are done. Which one comes {which}?",
        "Tell me the {which} step in one sentence.",
        "Put the deeds in order and name the {which}.",
        "Give the {which} of all the events below.",
        "Read the text and find what the child did {which}.",
        "Say in a sentence which deed was the {which} one.",
        "Of the things that happen, tell the {which}.",
    ), _event, _events, slots={"which": ("first", "last")}, weight=2.0, sentences=_says(
        "{i} The {which} event: {a}", "{i} What came {which}? {a}")),
    Family("story_title", "writing", (
        "Give the story a title with the name and the place.",
        "Write a title that says someone is at some place.",
        "How could we call this tale, using who and where?",
        "Find a heading for the text that says who is where.",
        "Put a short title above these lines, with hero and place.",
        "This story still needs a name. Who is at what place?",
        "Compose the book title: the person, then at, then the place.",
        "Make up a heading from the main person and the setting.",
        "What is a good title that tells the hero and the place?",
        "Name the story after the child and the place below.",
    ), _title, _story(), sentences=_says("{i} Title: {a}", "{a}: {i}")),
    Family("note_part", "forms", (
        "What is the {part} in this note?",
        "Find the {part} in the message.",
        "Pull the {part} out of the letter below.",
        "Read my mail and write only its {part}.",
        "Give the {part}, nothing else, from what was sent.",
        "A friend wrote to me. Tell me the {part} named there.",
        "For my list I need just the {part} of the note.",
        "Copy the {part} that stands in these lines.",
        "Which {part} does the message give?",
        "Look through the note and say the {part}.",
    ), _note_part, _note, slots={"part": ("sender", "day", "price")}, weight=1.5, sentences=_says(
        "{i} The {part} is {a}.", "The {part} is {a} in this note: {i}")),
    Family("form_line", "forms", (
        "Fill in the form with name and {field}.",
        "Write the name and the {field} as one form line.",
        "Put this into form shape, the name before the {field}.",
        "From the sentence, make an entry that has name and {field}.",
        "Our list has two boxes, name and {field}. Fill both.",
        "Turn the text into a record of the name plus the {field}.",
        "Note down who it is and the {field}, in form style.",
        "Sort the facts below under Name and under the {field}.",
        "Complete an entry form for the person with the {field}.",
        "Make a record line: first the name, next the {field}.",
    ), _form_line, _entry, slots={"field": ("place", "day")}, weight=1.5, sentences=_says(
        "{i} {a}", "{i} In the form: {a}", "The form says {a}. {i}")),
    Family("pick_out", "forms", (
        "List the {kind} in the sentence.",
        "Which two {kind} does the text name?",
        "Pick out all {kind}.",
        "Write down only the {kind}, in order, with a comma.",
        "Find both {kind} that are mentioned below.",
        "What {kind} can you see in this report?",
        "Leave out everything but the {kind}.",
        "Copy the {kind} from the line and nothing more.",
        "Read it and give me the {kind} as a short list.",
        "Tell me the {kind} that the writer speaks about.",
    ), _pick, _counts, slots={"kind": tuple(_PICKS)}, weight=2.0, sentences=_says(
        "{i} The {kind} are {a}.", "The {kind} {a} are in: {i}")),
)  # fmt: skip
