"""Union-find over whole label arrays, against sets joined one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from irprune.labels import PINNED, Rows, UnionFind, selected

SIZE = 12
pairs = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)), max_size=20)


def _naive(unions: list[list[tuple[int, int]]]) -> list[int]:
    """The smallest member of each id's set."""
    least = list(range(SIZE))
    for batch in unions:
        for a, b in batch:
            low, high = sorted((least[a], least[b]))
            least = [low if n == high else n for n in least]
    return least


@given(unions=st.lists(pairs, max_size=5), reserved=st.integers(1, 4), data=st.data())
def test_union_find_agrees_with_joining_one_by_one(
    unions: list[list[tuple[int, int]]], reserved: int, data: st.DataObject
) -> None:
    sets = UnionFind(reserved)
    fresh = sets.fresh(SIZE - reserved)
    assert fresh.tolist() == list(range(reserved, SIZE))
    done: list[list[tuple[int, int]]] = []
    for batch in unions:
        left, right = np.array(batch, np.int64).reshape(-1, 2).T
        sets.union(left, right)
        done.append(batch)
        probe = data.draw(st.lists(st.integers(0, SIZE - 1), max_size=4))
        expected = _naive(done)
        found = sets.find(np.array(probe, np.int64))
        assert found.tolist() == [expected[k] for k in probe]
    expected = _naive(done)
    assert sets.roots().tolist() == [n if n >= reserved else PINNED for n in expected]
    every = np.arange(SIZE)
    assert sets.pinned(every).tolist() == [n < reserved for n in expected]


def test_union_broadcasts() -> None:
    sets = UnionFind()
    ids = sets.fresh(6).reshape(2, 3)
    sets.union(ids[:, :1], ids)
    assert sets.find(ids.ravel()).tolist() == [1, 1, 1, 4, 4, 4]
    sets.union(ids[0], np.zeros(1, np.int64))
    assert sets.pinned(ids).tolist() == [[True] * 3, [False] * 3]


def test_many_ids_grow_the_table_and_keep_its_sets() -> None:
    sets = UnionFind()
    first = sets.fresh(1000)
    sets.union(first, np.roll(first, 1))
    second = sets.fresh(100_000)
    assert sets.find(first).tolist() == [1] * 1000
    sets.union(second[:-1], second[1:])
    sets.union(second[-1:], first[:1])
    assert (sets.roots() == np.r_[0, np.ones(101_000, np.int64)]).all()


def test_a_long_chain_joined_backwards() -> None:
    sets = UnionFind()
    ids = sets.fresh(5000)
    sets.union(ids[::-1][:-1], ids[::-1][1:])
    assert (sets.find(ids) == 1).all()


def test_one_row_is_a_plain_axis() -> None:
    rows = Rows((0, 2), np.arange(12).reshape(3, 1, 4))
    slim = selected([None, rows, None], 0, np.arange(2))[1]
    assert isinstance(slim, Rows) and slim.per == (0,) and slim.labels.shape == (2, 4)
    plain = selected([None, slim, None], 0, np.arange(1))[1]
    assert isinstance(plain, np.ndarray) and plain.tolist() == [0, 1, 2, 3]
