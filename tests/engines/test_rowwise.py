"""Attention read row by row, held against the formula in float64."""

import pytest
import torch

from selfinstruct_train.engines.local import rowwise
from selfinstruct_train.engines.local.rowwise import attend_rows, can_attend_rows

needs_library = pytest.mark.skipif(
    rowwise._library() is None, reason="the library was not built: no C compiler at install"
)


def tensors(rows: int, heads: int, kept: int, size: int, capacity: int = 40, spread: float = 1.0):
    generator = torch.Generator().manual_seed(rows * size + heads)
    query = torch.randn(rows, heads, 1, size, generator=generator) * spread
    keys, values = torch.randn(2, rows + 2, kept, capacity, size, generator=generator)
    return query, keys, values


def by_formula(query, keys, values, seen, window, scale):
    out, mass = [], []
    group = query.shape[1] // keys.shape[1]
    for row, end in enumerate(seen.tolist()):
        start = max(0, end - window) if window else 0
        key, value = (
            x[row, :, start:end].double().repeat_interleave(group, 0) for x in (keys, values)
        )
        scores = torch.einsum("hd,htd->ht", query[row, :, 0].double(), key) * scale
        out.append(torch.einsum("ht,htd->hd", scores.softmax(-1), value)[:, None])
        mass.append(scores.logsumexp(-1)[:, None])
    return torch.stack(out), torch.stack(mass)


@needs_library
@pytest.mark.parametrize(
    "heads, kept, size", [(4, 4, 64), (6, 2, 128), (2, 1, 16), (3, 3, 80), (2, 2, 256)]
)
@pytest.mark.parametrize("window", [None, 7])
def test_every_row_attends_to_its_own_length(heads, kept, size, window):
    query, keys, values = tensors(5, heads, kept, size)
    seen = torch.tensor([1, 33, 16, 7, 3])
    busy = keys[:5, :, :33], values[:5, :, :33]
    assert can_attend_rows(query, *busy)
    out, mass = attend_rows(query, *busy, seen, window, size**-0.5)
    expected, expected_mass = by_formula(query, keys, values, seen, window, size**-0.5)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(mass.double(), expected_mass, rtol=1e-6, atol=2e-6)


@needs_library
@pytest.mark.parametrize("heads, kept, size", [(9, 3, 64), (6, 2, 128), (3, 3, 80)])
@pytest.mark.parametrize("window", [None, 7])
def test_keys_and_values_in_bfloat16_are_summed_in_float32(heads, kept, size, window):
    query, keys, values = (x.bfloat16() for x in tensors(5, heads, kept, size))
    seen = torch.tensor([1, 33, 16, 7, 3])
    busy = keys[:5, :, :33], values[:5, :, :33]
    assert can_attend_rows(query, *busy)
    out, mass = attend_rows(query, *busy, seen, window, size**-0.5)
    expected, expected_mass = by_formula(query, keys, values, seen, window, size**-0.5)
    # The result is rounded once, to 8 bits; nothing before it is.
    torch.testing.assert_close(out.double(), expected, rtol=2**-8, atol=2e-6)
    torch.testing.assert_close(mass.double(), expected_mass, rtol=1e-6, atol=2e-6)


@needs_library
def test_a_library_that_knows_float32_alone_is_asked_for_nothing_else(monkeypatch):
    library = rowwise._library()
    older = library._replace(functions={torch.float32: library.functions[torch.float32]})
    monkeypatch.setattr(rowwise, "_library", lambda: older)
    query, keys, values = tensors(2, 2, 2, 32)
    assert can_attend_rows(query, keys[:2], values[:2])
    assert not can_attend_rows(*(x.bfloat16() for x in (query, keys[:2], values[:2])))


@needs_library
def test_scores_far_apart_neither_overflow_nor_vanish():
    query, keys, values = tensors(3, 2, 2, 64, spread=400.0)
    seen = torch.tensor([40, 11, 1])
    out, mass = attend_rows(query, keys[:3], values[:3], seen, None, 0.125)
    expected, expected_mass = by_formula(query, keys, values, seen, None, 0.125)
    assert expected_mass.max() > 500
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mass.double(), expected_mass, rtol=1e-6, atol=1e-4)


@needs_library
def test_a_row_gives_the_same_bits_in_any_company_and_with_any_number_of_threads(monkeypatch):
    query, keys, values = tensors(12, 4, 2, 64)
    seen = torch.arange(3, 15)
    whole, mass = attend_rows(query, keys[:12], values[:12], seen, None, 0.125)
    for row in range(12):
        at = slice(row, row + 1)
        alone = attend_rows(query[at], keys[at], values[at], seen[at], None, 0.125)
        assert torch.equal(alone[0], whole[at])
        assert torch.equal(alone[1], mass[at])
    monkeypatch.setattr(rowwise, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert torch.equal(attend_rows(query, keys[:12], values[:12], seen, None, 0.125)[0], whole)


@needs_library
def test_what_it_cannot_read_goes_another_way():
    query, keys, values = tensors(2, 2, 2, 32)
    assert can_attend_rows(query, keys[:2], values[:2])
    assert not can_attend_rows(query.expand(-1, -1, 3, -1), keys[:2], values[:2])
    assert not can_attend_rows(query.double(), keys[:2].double(), values[:2].double())
    assert not can_attend_rows(query[..., :8], keys[:2, ..., :8], values[:2, ..., :8])
    assert not can_attend_rows(query, keys[:2].transpose(1, 2), values[:2].transpose(1, 2))


def test_without_the_library_nothing_is_asked_of_it(monkeypatch):
    monkeypatch.setattr(rowwise, "_library", lambda: None)
    query, keys, values = tensors(2, 2, 2, 32)
    assert not can_attend_rows(query, keys[:2], values[:2])
