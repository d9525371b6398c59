"""Plans the memory of a program: lifetimes, storage in place, offsets in one arena."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from wiesel.graph.ir import NUMPY_DTYPES, Graph, Node, Value
from wiesel.passes.place import storage_root, stored_in
from wiesel.program.emit import Place
from wiesel.program.layout import align

_FAR = 2**62  # beyond every offset


@dataclass(slots=True)
class Storage:
    """Memory of one or several values in turn: ``nbytes`` from position ``begin`` to ``end`` of the node list, both included."""

    nbytes: int
    begin: int
    end: int
    offset: int = 0
    values: list[Value] = field(default_factory=list)


def plan_memory(graph: Graph, n: int, fixed: Mapping[Value, Place]) -> tuple[dict[Value, Place], dict[str, int], list[Storage]]:
    """Places for every value of ``graph``, the bytes of ``arena`` and ``prepared``, and the storages of the arena.

    ``fixed`` holds the places (by storage root) that are settled. Values that entry prepare makes for later entries lie in
    ``prepared``; everything else in the arena, where storage is shared by lifetime.
    """
    last_use = _last_uses(graph)
    places: dict[Value, Place] = dict(fixed)
    storages: dict[Value, Storage] = {}
    prepared_bytes = 0
    for i, node in enumerate(graph.nodes):
        if node.op.alias:
            continue
        for value in map(storage_root, node.outputs):
            if value in places or value in storages:
                continue
            end = last_use.get(value, i)
            if node.entry == "prepare" and graph.nodes[end].entry != "prepare":
                places[value] = Place("prepared", prepared_bytes)
                prepared_bytes += align(value.type.nbytes(n))
                continue
            storage = _reusable(node, i, value, storages, last_use)
            if storage is None:
                storage = Storage(align(value.type.nbytes(n)), i, end)
            storage.end = max(storage.end, end)
            storage.values.append(value)
            storages[value] = storage
    distinct = list({id(storage): storage for storage in storages.values()}.values())
    arena_bytes = assign_offsets(distinct)
    for value, storage in storages.items():
        places[value] = Place("arena", storage.offset)
    for node in graph.nodes:
        for value in node.outputs:
            if stored_in(value) is not None:
                places[value] = _place_inside(value, places)
    return places, {"arena": arena_bytes, "prepared": prepared_bytes}, distinct


def _place_inside(value: Value, places: Mapping[Value, Place]) -> Place:
    """Where an alias or a part lies."""
    source = stored_in(value)
    if source is None:
        return places[value]
    place = _place_inside(source, places)
    channel = value.part_of[1] if value.part_of is not None else 0
    return replace(place, offset=place.offset + channel * NUMPY_DTYPES[value.dtype].itemsize)


def _last_uses(graph: Graph) -> dict[Value, int]:
    """Position of the last node that reads each storage root, aliases included."""
    last: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        if node.op.alias:
            continue
        for value in node.inputs:
            if value is not None:
                last[storage_root(value)] = i
    return last


def _reusable(node: Node, position: int, value: Value, storages: Mapping[Value, Storage], last_use: Mapping[Value, int]) -> Storage | None:
    """The storage of an input that dies here and in whose place the op may write ``value``."""
    for i, o in node.op.in_place:
        if o != value.index or i >= len(node.inputs):
            continue
        source = node.inputs[i]
        if source is None or source.type != value.type or source.part_of is not None:
            continue
        root = storage_root(source)
        storage = storages.get(root)
        if storage is None or last_use.get(root) != position or storage.end != position:
            continue
        shared = [k for k, v in enumerate(node.inputs) if v is not None and storages.get(storage_root(v)) is storage]
        taken = any(storages.get(other) is storage for other in node.outputs)
        if not taken and all((k, o) in node.op.in_place and node.inputs[k].type == value.type for k in shared):  # type: ignore[union-attr]
            return storage
    return None


def assign_offsets(storages: Sequence[Storage]) -> int:
    """Sets every storage's offset so that those alive together do not overlap; returns the bytes of the arena.

    Strategies: in order of time, best fit, which reuses what was freed last (warm in the caches); unless that is within 1/64 of the
    optimum, in order of size; then in order of size times lifetime. A later one wins when it saves more than 1/64.
    """
    if not storages:
        return 0
    offsets, total = _by_time(storages)
    least = peak_bytes(storages)
    for strategy in (_by_size, _by_area):
        if total > _nearly(least):
            packed, packed_total = strategy(storages)
            if total > _nearly(packed_total):
                offsets, total = packed, packed_total
    for storage, offset in zip(storages, offsets, strict=True):
        storage.offset = offset
    return total


def _nearly(nbytes: int) -> int:
    return nbytes + nbytes // 64


def peak_bytes(storages: Sequence[Storage]) -> int:
    """The most bytes alive at one position: no plan can do with less."""
    events: dict[int, int] = {}
    for storage in storages:
        events[storage.begin] = events.get(storage.begin, 0) + storage.nbytes
        events[storage.end + 1] = events.get(storage.end + 1, 0) - storage.nbytes
    alive = peak = 0
    for position in sorted(events):
        alive += events[position]
        peak = max(peak, alive)
    return peak


def _by_time(storages: Sequence[Storage]) -> tuple[list[int], int]:
    """Best fit in order of first use; free blocks are merged, and of equally good ones the last freed is taken."""
    free: list[tuple[int, int, int]] = []  # offset, bytes, time of freeing; sorted by offset
    ends: list[tuple[int, int]] = []
    offsets = [0] * len(storages)
    top = 0
    for i in sorted(range(len(storages)), key=lambda k: (storages[k].begin, -storages[k].nbytes)):
        storage = storages[i]
        while ends and ends[0][0] < storage.begin:
            freed_at, k = heapq.heappop(ends)
            _release(free, offsets[k], storages[k].nbytes, freed_at)
        fitting = [(size, -freed_at, where) for where, (_, size, freed_at) in enumerate(free) if size >= storage.nbytes]
        if fitting:
            _, _, where = min(fitting)
            offset, size, freed_at = free[where]
            if size == storage.nbytes:
                del free[where]
            else:
                free[where] = (offset + storage.nbytes, size - storage.nbytes, freed_at)
        elif free and free[-1][0] + free[-1][1] == top:
            offset, _, _ = free.pop()
            top = offset + storage.nbytes
        else:
            offset = top
            top += storage.nbytes
        offsets[i] = offset
        heapq.heappush(ends, (storage.end, i))
    return offsets, top


def _release(free: list[tuple[int, int, int]], offset: int, size: int, freed_at: int) -> None:
    where = 0
    while where < len(free) and free[where][0] < offset:
        where += 1
    if where < len(free) and offset + size == free[where][0]:
        size += free[where][1]
        del free[where]
    if where > 0 and free[where - 1][0] + free[where - 1][1] == offset:
        offset = free[where - 1][0]
        size += free[where - 1][1]
        where -= 1
        del free[where]
    free.insert(where, (offset, size, freed_at))


def _by_size(storages: Sequence[Storage]) -> tuple[list[int], int]:
    return _fit(storages, sorted(range(len(storages)), key=lambda k: (-storages[k].nbytes, storages[k].begin)))


def _by_area(storages: Sequence[Storage]) -> tuple[list[int], int]:
    return _fit(storages, sorted(range(len(storages)), key=lambda k: -storages[k].nbytes * (storages[k].end - storages[k].begin + 1)))


def _fit(storages: Sequence[Storage], order: Sequence[int]) -> tuple[list[int], int]:
    """In this order, each into the tightest gap between those that are placed and alive at the same time."""
    count = len(storages)
    begin, end, offset, stop = (np.zeros(count, dtype=np.int64) for _ in range(4))
    offsets = [0] * count
    top = 0
    for placed, i in enumerate(order):
        storage = storages[i]
        alive = np.flatnonzero((begin[:placed] <= storage.end) & (end[:placed] >= storage.begin))
        chosen = 0
        if alive.size:
            by_offset = alive[np.argsort(offset[alive], kind="stable")]
            reached = np.maximum.accumulate(stop[by_offset])
            gap_begin = np.concatenate(([0], reached))
            gap = np.concatenate((offset[by_offset], [_FAR])) - gap_begin
            gap[-1] = _FAR  # above everything: always fits, taken last
            gap = np.where(gap >= storage.nbytes, gap, _FAR)
            best = int(np.argmin(gap)) if gap.min() < _FAR else len(gap) - 1
            chosen = int(gap_begin[best])
        begin[placed], end[placed], offset[placed], stop[placed] = storage.begin, storage.end, chosen, chosen + storage.nbytes
        offsets[i] = chosen
        top = max(top, chosen + storage.nbytes)
    return offsets, top
