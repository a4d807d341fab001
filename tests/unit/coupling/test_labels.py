"""Atoms: unions are transitive, a freeze spreads to everything coupled, and its first reason is kept."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.coupling.labels import FROZEN, AtomTable, Freeze

ADD = Freeze(node="add_1", op="add", reason="coupled")
OUTPUT = Freeze(node="output", op="output", reason="output of the model")
SOFTMAX = Freeze(node="softmax_1", op="softmax", reason="no rule for this op")


@pytest.fixture
def table() -> AtomTable:
    return AtomTable()


def test_new_atoms_are_classes_of_their_own(table):
    first, second = table.new(3), table.new(2)
    assert len(set(first) | set(second)) == 5
    assert FROZEN not in {*first, *second}
    assert table.roots(np.concatenate([first, second])).tolist() == [*first, *second]
    assert len(table) == 6


def test_union_is_index_by_index_and_transitive(table):
    a, b, c = table.new(3), table.new(3), table.new(3)
    table.union(a, b, ADD)
    table.union(c, b[::-1], ADD)
    roots_a, roots_c = table.roots(a), table.roots(c)
    assert roots_a.tolist() == roots_c[::-1].tolist()
    assert len(set(roots_a.tolist())) == 3


def test_roots_keep_the_shape(table):
    a = table.new(6)
    assert table.roots(a.reshape(2, 3)).shape == (2, 3)


def test_freezing_one_freezes_its_class_only_and_says_why(table):
    a, b = table.new(3), table.new(3)
    table.union(a, b, ADD)
    table.freeze(b[1:2], SOFTMAX)
    assert (table.roots(a) == FROZEN).tolist() == [False, True, False]
    assert table.reason_of(int(a[1])) is SOFTMAX
    assert table.reason_of(int(a[0])) is None


@pytest.mark.parametrize("frozen_side", [0, 1])
def test_a_union_with_a_frozen_class_freezes_whichever_side_it_is(table, frozen_side):
    sides = [table.new(2), table.new(2)]
    table.freeze(sides[frozen_side], OUTPUT)
    table.union(*sides, ADD)
    later = table.new(2)
    table.union(sides[1 - frozen_side], later, ADD)
    for atoms in (*sides, later):
        assert (table.roots(atoms) == FROZEN).all()
        assert table.reason_of(int(atoms[0])) is OUTPUT


@pytest.mark.parametrize("frozen_first", [True, False])
def test_the_frozen_atom_freezes_what_it_meets(table, frozen_first):
    a = table.new(2)
    zeros = np.zeros(2, dtype=np.int64)
    table.union(*((zeros, a) if frozen_first else (a, zeros)), ADD)
    assert (table.roots(a) == FROZEN).all()
    assert table.reason_of(int(a[0])) is ADD


def test_the_first_reason_stays(table):
    a = table.new(1)
    table.freeze(a, SOFTMAX)
    table.freeze(a, OUTPUT)
    assert table.reason_of(int(a[0])) is SOFTMAX


def test_vectors_of_different_lengths_are_refused(table):
    with pytest.raises(ValueError, match="zip"):
        table.union(table.new(2), table.new(3), ADD)


def test_a_long_chain_of_unions_is_one_class(table):
    atoms = table.new(5000)
    table.union(atoms[:-1], atoms[1:], ADD)
    assert len(set(table.roots(atoms).tolist())) == 1
    table.freeze(atoms[-1:], OUTPUT)
    assert (table.roots(atoms) == FROZEN).all()
