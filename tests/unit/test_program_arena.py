"""The arena: values that live at once do not share a byte, others do, and aliases and outputs are kept."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from onebit.program.arena import Access, Lifetime, lay_out, lifetimes


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 600)), min_size=1, max_size=30))
def test_values_that_live_at_once_do_not_overlap(values: list[tuple[int, int]]) -> None:
    lifetimes = [Lifetime(str(i), i, i + reach, nbytes) for i, (reach, nbytes) in enumerate(values)]
    layout = lay_out(lifetimes, 256)
    places = [(v, layout.offsets[v.name], layout.offsets[v.name] + v.nbytes) for v in lifetimes]
    for value, begin, end in places:
        assert begin % 256 == 0
        assert end <= layout.nbytes
        for other, other_begin, other_end in places:
            if other is not value and value.first <= other.last and other.first <= value.last:
                assert end <= other_begin or other_end <= begin or not (value.nbytes and other.nbytes)


def test_a_chain_of_values_takes_the_memory_of_two() -> None:
    lifetimes = [Lifetime(str(i), i, i + 1, 1024) for i in range(10)]
    assert lay_out(lifetimes, 256).nbytes == 2048


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_no_step_of_a_run_finds_a_value_overwritten(data: st.DataObject) -> None:
    """The run itself: each value fills its bytes with its own number, and every reader finds them so."""
    sizes = {"x": data.draw(st.integers(1, 200))}
    accesses: list[Access] = []
    for index in range(data.draw(st.integers(1, 12))):
        reads = tuple(data.draw(st.lists(st.sampled_from(sorted(sizes)), min_size=1, max_size=3)))
        over = reads if data.draw(st.booleans()) else ()
        accesses.append(Access(reads, (f"v{index}",), over))
        sizes[f"v{index}"] = data.draw(st.integers(1, 200))
    outputs = [f"v{len(accesses) - 1}", data.draw(st.sampled_from(sorted(sizes)))]
    layout = lay_out(lifetimes(accesses, sizes.__getitem__, inputs=["x"], outputs=outputs), 16)
    memory = [""] * layout.nbytes

    def place(name: str) -> slice:
        return slice(layout.offsets[name], layout.offsets[name] + sizes[name])

    memory[place("x")] = ["x"] * sizes["x"]
    for access in accesses:
        for name in access.reads:
            assert set(memory[place(name)]) == {name}
        for name in access.writes:
            memory[place(name)] = [name] * sizes[name]
    for name in outputs:
        assert set(memory[place(name)]) == {name}


def test_a_step_in_place_takes_no_memory_of_its_own() -> None:
    chain = [Access((f"v{i}",), (f"v{i + 1}",), (f"v{i}",)) for i in range(5)]
    assert lay_out(lifetimes(chain, lambda name: 1000, inputs=["v0"]), 8).nbytes == 1000
    apart = [Access(access.reads, access.writes) for access in chain]
    assert lay_out(lifetimes(apart, lambda name: 1000, inputs=["v0"]), 8).nbytes == 2000


def test_a_value_that_is_read_later_is_not_overwritten_in_place() -> None:
    accesses = [Access(("x",), ("a",), ("x",)), Access(("a", "x"), ("b",), ("a",))]
    layout = lay_out(lifetimes(accesses, lambda name: 8, inputs=["x"]), 8)
    assert layout.offsets == {"x": 0, "a": 8, "b": 8}


def test_a_larger_value_does_not_lie_on_a_smaller_one() -> None:
    sizes = {"x": 8, "a": 24, "b": 8}
    accesses = [Access(("x",), ("a",), ("x",)), Access(("a",), ("b",), ("a",))]
    layout = lay_out(lifetimes(accesses, sizes.__getitem__, inputs=["x"]), 8)
    assert layout.offsets == {"x": 0, "a": 8, "b": 8}


def test_an_alias_keeps_the_value_whose_memory_it_is() -> None:
    accesses = [Access(("x",), ("a",)), Access(("a",), ("b",)), Access(("r2",), ("c",))]
    values = lifetimes(accesses, lambda name: 8, inputs=["x"], aliases={"r1": "a", "r2": "r1"})
    assert [(value.name, value.first, value.last) for value in values] == [
        ("x", -1, 0),
        ("a", 0, 2),
        ("b", 1, 1),
        ("c", 2, 2),
    ]


def test_a_value_with_memory_of_its_own_has_no_place() -> None:
    accesses = [Access(("x",), ("a",)), Access(("a",), ("y",))]
    values = lifetimes(accesses, lambda name: 8, inputs=["x"], outside=["x", "y"])
    assert set(lay_out(values, 8).offsets) == {"a"}
