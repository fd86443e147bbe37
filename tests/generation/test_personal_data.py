"""Personal data are found by form and check digits, and dropped where that is asked for."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_train.config import FilterConfig, PersonalDataKind
from selfinstruct_train.generation.filters import InstructionFilter, check_instances
from selfinstruct_train.generation.personal_data import (
    find_personal_data,
    passes_luhn,
    passes_mod_97,
)
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import Instance

ALL: tuple[PersonalDataKind, ...] = ("card", "iban", "email", "phone")
FOUND = {
    "Charge it to 4111 1111 1111 1111 please.": "card",
    "card:378282246310005": "card",
    "Pay into GB82 WEST 1234 5698 7654 32 by Friday": "iban",
    "IBAN DE89370400440532013000.": "iban",
    "Zahlen Sie an BR1500000000000010932840814P2 heute": "iban",
    "write to ana.souza+news@correio.com.br now": "email",
    "邮箱是li.wei@mail.cn，请回复": "email",
    "Call +44 20 7946 0958 after five": "phone",
    "(555) 234-9876": "phone",
    "Ligue para (11) 98765-4321": "phone",
    "请拨打13812345678联系": "phone",
}
FINE = (
    "Charge it to 4111 1111 1111 1112 please.",
    "0000 0000 0000 0000",
    "The number pi is 3.14159265358979323846",
    "Add 1234567890123456 and 1, then say whether it is even.",
    "GB00 WEST 1234 5698 7654 32",
    "Write to the team at info@example.com or me@mail.test",
    "@handle and a@b are no addresses",
    "From 1914-1918 and 10-12-2024, at 12:30, 1,234,567.89 or 192.168.100.200",
    "f(x) = (12) 345 - 6789x",
    "2019-2024 2020-2025",
)


@pytest.mark.parametrize(("text", "kind"), FOUND.items())
def test_each_kind_is_found(text: str, kind: PersonalDataKind) -> None:
    found = find_personal_data(text, ALL)
    assert found is not None and found.kind == kind
    assert len(found.shown.split()[0]) == 5, "most of it is hidden"
    assert find_personal_data(text, tuple(other for other in ALL if other != kind)) is None


@pytest.mark.parametrize("text", FINE)
def test_what_only_looks_alike_stays(text: str) -> None:
    assert find_personal_data(text, ALL) is None


@given(st.text("0123456789", min_size=12, max_size=18))
def test_exactly_one_last_digit_is_right_by_luhn(digits: str) -> None:
    right = [d for d in "0123456789" if passes_luhn(digits + d)]
    assert len(right) == 1
    # Any single wrong digit is seen.
    place = len(digits) // 2
    other = digits[:place] + str((int(digits[place]) + 1) % 10) + digits[place + 1 :]
    assert not passes_luhn(other + right[0])


@given(st.text("0123456789ABCXYZ", min_size=11, max_size=28), st.sampled_from(["DE", "GB", "PT"]))
def test_one_pair_of_check_digits_is_right_by_mod_97(account: str, country: str) -> None:
    right = [n for n in range(2, 99) if passes_mod_97(f"{country}{n:02}{account}")]
    assert len(right) == 1


def test_one_random_number_in_ten_has_a_right_last_digit() -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices("0123456789", k=16)) for _ in range(2000)]
    assert sum(passes_luhn(text) for text in texts) == pytest.approx(200, abs=45)


def test_rows_with_personal_data_are_dropped_where_asked_for_and_only_then() -> None:
    rules = load_pack("en").rules
    text = "Write a reply to ana@correio.com.br about the bill"
    asked = InstructionFilter(FilterConfig(personal_data=("email",)), rules).fault(text)
    assert asked is not None and asked.reason == "personal_email"
    assert InstructionFilter(FilterConfig(), rules).fault(text) is None
    row = Instance(input="Her number is (555) 234-9876.", output="yes")
    (dropped,) = check_instances("Any number?", [row], False, 5, 4, personal_data=ALL)
    assert dropped.fault is not None and dropped.fault.reason == "personal_phone"
    (kept,) = check_instances("Any number?", [row], False, 5, 4)
    assert kept.fault is None
