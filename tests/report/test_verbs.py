import sys
import warnings
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct_train.report.parse import MODEL, Pair, Word, find_pair, load_model, parse_pairs
from selfinstruct_train.report.treemap import fit_label, text_width, verbs_plot
from selfinstruct_train.report.verbs import count_verbs, find_verbs, guess_pair

# One parsed sentence for each line of a text: word/lemma/part/relation/head, head from 0; a lemma
# that is the lower-case word is left out. Labels are those of spaCy's English models.
PARSED = {
    "a list of things": (
        "Write//VERB/ROOT/0 a//DET/det/2 list//NOUN/dobj/0 of//ADP/prep/2 "
        "animals/animal/NOUN/pobj/3 .//PUNCT/punct/0",
        ("write", "list"),
    ),
    "a plural": (
        "Name//VERB/ROOT/0 three//NUM/nummod/2 colors/color/NOUN/dobj/0",
        ("name", "color"),
    ),
    "a request put as a question": (
        "Can//AUX/aux/2 you//PRON/nsubj/2 tell//VERB/ROOT/2 me//PRON/dative/2 the//DET/det/5 "
        "capital//NOUN/dobj/2 of//ADP/prep/5 France//PROPN/pobj/6 ?//PUNCT/punct/2",
        ("tell", "capital"),
    ),
    "a condition before the verb": (
        "Given/give/VERB/prep/4 a//DET/det/2 sentence//NOUN/pobj/0 ,//PUNCT/punct/4 "
        "classify//VERB/ROOT/4 its//PRON/poss/6 sentiment//NOUN/dobj/4 .//PUNCT/punct/4",
        ("classify", "sentiment"),
    ),
    "an object in the condition": (
        "If//SCONJ/mark/3 the//DET/det/2 text//NOUN/nsubj/3 holds/hold/VERB/advcl/7 a//DET/det/5 "
        "date//NOUN/dobj/3 ,//PUNCT/punct/7 extract//VERB/ROOT/7 the//DET/det/9 year//NOUN/dobj/7",
        ("extract", "year"),
    ),
    "a statement first": (
        "You//PRON/nsubjpass/2 are/be/AUX/auxpass/2 given/give/VERB/ROOT/2 two//NUM/nummod/4 "
        "numbers/number/NOUN/dobj/2 .//PUNCT/punct/2\n"
        "Add//VERB/ROOT/0 the//DET/det/2 numbers/number/NOUN/dobj/0 .//PUNCT/punct/0",
        ("add", "number"),
    ),
    "an object that verbs share": (
        "Read//VERB/ROOT/0 and//CCONJ/cc/0 summarize//VERB/conj/0 the//DET/det/4 "
        "article//NOUN/dobj/2 .//PUNCT/punct/0",
        ("read", "article"),
    ),
    "an object of the second verb alone": (
        "Think//VERB/ROOT/0 of//ADP/prep/0 him//PRON/pobj/1 and//CCONJ/cc/0 write//VERB/conj/0 "
        "a//DET/det/6 poem//NOUN/dobj/4",
        None,
    ),
    "a list of objects": (
        "Identify//VERB/ROOT/0 the//DET/det/2 subject//NOUN/dobj/0 and//CCONJ/cc/2 "
        "verb//NOUN/conj/2",
        ("identify", "subject"),
    ),
    "a pronoun before the object": (
        "Give//VERB/ROOT/0 me//PRON/dobj/0 an//DET/det/3 example//NOUN/dobj/0",
        ("give", "example"),
    ),
    "a task that is named": (
        "Your//PRON/poss/1 task//NOUN/nsubj/2 is/be/AUX/ROOT/2 to//PART/aux/4 "
        "write//VERB/xcomp/2 a//DET/det/6 poem//NOUN/dobj/4",
        ("write", "poem"),
    ),
    "a verb taken for a noun": (
        "List/List/PROPN/ROOT/0 the//DET/det/2 ingredients/ingredient/NOUN/dobj/0",
        ("list", "ingredient"),
    ),
    "the label of Universal Dependencies": (
        "Sort//VERB/ROOT/0 the//DET/det/2 words/word/NOUN/obj/0",
        ("sort", "word"),
    ),
    "a clause for an object": (
        "Explain//VERB/ROOT/0 why//SCONJ/advmod/4 the//DET/det/3 sky//NOUN/nsubj/4 "
        "is/be/AUX/ccomp/0 blue//ADJ/acomp/4",
        None,
    ),
    "a pronoun for an object": ("Translate//VERB/ROOT/0 this//PRON/dobj/0", None),
    "a question about a thing": (
        "What//PRON/attr/1 is/be/AUX/ROOT/1 the//DET/det/3 capital//NOUN/nsubj/1 ?//PUNCT/punct/1",
        None,
    ),
    "a question with an object": (
        "Who//PRON/nsubj/1 wrote/write/VERB/ROOT/1 this//DET/det/3 book//NOUN/dobj/1 "
        "?//PUNCT/punct/1",
        None,
    ),
    "a question without a subject": (
        "How//SCONJ/advmod/2 to//PART/aux/2 bake//VERB/ROOT/2 a//DET/det/4 cake//NOUN/dobj/2 "
        "?//PUNCT/punct/2",
        None,
    ),
    "a fragment": ("Sentiment//NOUN/ROOT/0 analysis//NOUN/appos/0", None),
    "nothing": ("", None),
}
CASES = pytest.mark.parametrize(("text", "expected"), PARSED.values(), ids=PARSED.keys())

# Labelled by hand: the verb that the first request asks for and the noun that is its direct object.
LABELLED = {
    "Write a list of animals that live in the desert.": "write list",
    "Can you tell me the capital of France?": "tell capital",
    "Given a sentence, classify its sentiment.": "classify sentiment",
    "Name three primary colors.": "name color",
    "Sort the numbers in ascending order.": "sort number",
    "List the ingredients of a pancake.": "list ingredient",
    "Generate a short story about a dog and a cat.": "generate story",
    "Translate the sentence to French.": "translate sentence",
    "Please give me an example of a metaphor.": "give example",
    "What is the boiling point of water?": "",
    "Explain why the sky is blue.": "",
    "Write and illustrate a short poem for children.": "write poem",
    "Describe, in your own words, the plot of a film that you like.": "describe plot",
    "You are given two integers. Compute their sum.": "compute sum",
    "Rewrite the following sentence in the passive voice.": "rewrite sentence",
    "Edit this paragraph so that it has no spelling mistakes.": "edit paragraph",
    "Convert 25 degrees Celsius to Fahrenheit.": "convert degree",
    "How many legs does a spider have?": "",
    "I need to cook dinner for ten people. Suggest three simple dishes.": "suggest dish",
    "Summarize the article below in two sentences.": "summarize article",
    "Identify the subject and the verb of the sentence.": "identify subject",
    "Based on the review, predict how many stars the user gave.": "",
    "Design a logo for a small bakery.": "design logo",
    "Make a to-do list for a birthday party.": "make list",
    "Tell me whether the two words rhyme.": "",
    "Create a quiz with five questions about planets.": "create quiz",
    "If the text contains a date, extract the date.": "extract date",
    "Do these sentences mean the same thing?": "",
    "Reverse the order of the letters in the word.": "reverse order",
    "Who wrote the first English dictionary?": "",
    "Answer the question with yes or no.": "answer question",
    "Compare the two phones and recommend one of them.": "compare phone",
}


def read_parse(text: str) -> list[list[Word]]:
    sentences = []
    for line in text.splitlines():
        rows = (word.split("/") for word in line.split())
        sentences.append([Word(w, m or w.lower(), pos, dep, int(h)) for w, m, pos, dep, h in rows])
    return sentences


@CASES
def test_the_pair_is_the_verb_asked_for_and_its_noun(
    text: str, expected: tuple[str, str] | None
) -> None:
    assert find_pair(read_parse(text)) == expected


class Recalled:
    """Has the parse of each text at hand, as spaCy documents."""

    meta = {"lang": "en", "name": "core_web_sm", "version": "3.8.0"}

    def __init__(self, parsed: dict[str, list[list[Word]]]) -> None:
        self.parsed = parsed

    def pipe(self, texts: Any, **_: Any) -> Any:
        tokens = pytest.importorskip("spacy.tokens", reason="spaCy is not installed")
        vocab = pytest.importorskip("spacy.vocab").Vocab()
        for text in texts:
            sentences = self.parsed[text]
            starts = [sum(map(len, sentences[:i])) for i in range(len(sentences))]
            words = [word for sentence in sentences for word in sentence]
            heads = [s + w.head for s, ws in zip(starts, sentences, strict=True) for w in ws]
            yield tokens.Doc(
                vocab,
                words=[w.text for w in words],
                lemmas=[w.lemma for w in words],
                pos=[w.pos for w in words],
                deps=[w.dep for w in words],
                heads=heads,
                sent_starts=[i in starts for i in range(len(words))],
            )


def recalled() -> tuple[Recalled, list[str]]:
    parsed = {}
    for text, _ in PARSED.values():
        sentences = read_parse(text)
        parsed[" ".join(w.text for words in sentences for w in words)] = sentences
    return Recalled(parsed), list(parsed)


def test_documents_of_the_parser_give_the_same_pairs() -> None:
    model, texts = recalled()
    assert list(parse_pairs(model, texts)) == [expected for _, expected in PARSED.values()]


def test_an_installed_model_is_used_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts = recalled()
    package = ModuleType(MODEL)
    monkeypatch.setattr(package, "load", lambda exclude: model, raising=False)
    monkeypatch.setitem(sys.modules, MODEL, package)
    verbs = find_verbs(texts)
    assert (verbs.model, verbs.total) == ("en_core_web_sm 3.8.0", len(PARSED))
    assert verbs.paired == sum(expected is not None for _, expected in PARSED.values())
    plot = verbs_plot(verbs, "verbs")
    assert plot is not None and "en_core_web_sm 3.8.0" in plot.caption
    assert plot.title.startswith("Root verbs")


def test_without_the_model_first_words_stand_in_and_the_caption_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # None makes the import fail, model or not.
    monkeypatch.setitem(sys.modules, MODEL, None)
    verbs = find_verbs(["Write the following text.", "Write an email", "Go"])
    assert verbs.model is None
    plot = verbs_plot(verbs, "verbs")
    assert plot is not None and "No parser is at work" in plot.caption
    assert "2 of 3 (66.7 %) are drawn" in plot.caption
    assert "python -m spacy download en_core_web_sm" in plot.caption


def test_the_trained_model_agrees_with_labels_by_hand() -> None:
    if (model := load_model()) is None:
        pytest.skip(f"the spaCy model {MODEL} is not installed")
    found = parse_pairs(model, LABELLED)
    agree = [
        " ".join(pair or ()) == label for pair, label in zip(found, LABELLED.values(), strict=True)
    ]
    assert sum(agree) >= 0.75 * len(LABELLED)


def test_the_guess_passes_over_what_is_no_content() -> None:
    assert guess_pair("Write a short story.") == Pair("write", "story")
    assert guess_pair("name the following ANIMALS") == Pair("name", "animals")
    assert guess_pair("Go") is None


def test_the_commonest_verbs_and_nouns_are_shown_and_the_rest_is_counted() -> None:
    pairs = [Pair("write", noun) for noun in ("list", "list", "poem", "essay")]
    pairs += [Pair("name", "color"), Pair("name", "color"), Pair("sort", "word")]
    verbs = count_verbs([*pairs, None], "made", verbs=2, nouns=2)
    shown = [(v.verb, [(n.noun, n.instructions) for n in v.nouns]) for v in verbs.shown]
    assert shown == [("write", [("list", 2), ("essay", 1)]), ("name", [("color", 2)])]
    assert (verbs.covered, verbs.paired, verbs.total) == (5, 7, 8)


@settings(max_examples=200, deadline=None)
@given(st.text("wmilWÄ訳 .", min_size=1, max_size=30), st.floats(1, 200), st.floats(1, 200))
def test_a_label_keeps_to_its_place(text: str, width: float, height: float) -> None:
    label = fit_label(text, width, height, 12)
    if label is None:
        assert min(width, height) < 12 or text_width(text, 12) > max(width, height)
    else:
        assert text_width(label.text, 12) <= (height if label.upwards else width)
        assert label.text == text or len(label.text) >= 5


def test_a_label_stands_upright_before_it_is_cut_short() -> None:
    assert fit_label("interaction", 90, 20, 12) == ("interaction", False)
    assert fit_label("interaction", 20, 90, 12) == ("interaction", True)
    cut = fit_label("interaction", 60, 20, 12)
    assert cut is not None and cut.text.startswith("inter") and cut.text.endswith("…")
    assert fit_label("interaction", 30, 20, 12) is None
    assert fit_label("i", 90, 5, 12) is None


def test_letters_that_the_drawing_font_lacks_are_written_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot = verbs_plot(count_verbs([Pair("写", "文章")], None), "verbs")
    assert plot is not None and ">文章</text>" in plot.svg
