"""Flat layouts: where each parameter, gradient and state lies in the buffers that all programs of a model share."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from wiesel.graph.ir import Type

ALIGNMENT = 64
"""Every segment starts on a cache line; the floats between segments are zeros and stay zeros."""

NO_GRADIENT = -1


def align(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True)
class Segment:
    """One parameter or state. Offsets are in bytes; ``grad_offset`` (in the gradients, and in each optimizer moment) is -1 when frozen."""

    name: str
    type: Type
    offset: int
    grad_offset: int = NO_GRADIENT
    group: int = 0

    @property
    def count(self) -> int:
        return self.type.elements(1)

    @property
    def frozen(self) -> bool:
        return self.grad_offset == NO_GRADIENT


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring trainable segments of one group: updated in one pass. Offsets in bytes, ``count`` in floats (with the gaps)."""

    group: int
    offset: int
    grad_offset: int
    count: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Segments by name, in the canonical order of ``state_dict``.

    Parameters keep their offsets whatever is frozen; gradients and optimizer state have room for trainable segments only.
    """

    params: Mapping[str, Segment] = field(default_factory=dict)
    states: Mapping[str, Segment] = field(default_factory=dict)
    param_bytes: int = 0
    grad_bytes: int = 0
    state_bytes: int = 0

    @staticmethod
    def of(
        params: Mapping[str, Type],
        states: Mapping[str, Type] | None = None,
        *,
        frozen: Collection[str] = (),
        groups: Mapping[str, int] | None = None,
    ) -> Layout:
        """Lays the parameters out in the order given; ``groups`` tells the optimizer group by name (0 where not named)."""
        segments: dict[str, Segment] = {}
        offset = grad_offset = 0
        for name, type in params.items():
            size = align(type.nbytes(1))
            trains = name not in frozen
            group = 0 if groups is None else groups.get(name, 0)
            segments[name] = Segment(name, type, offset, grad_offset if trains else NO_GRADIENT, group)
            offset += size
            grad_offset += size if trains else 0
        state_segments: dict[str, Segment] = {}
        state_offset = 0
        for name, type in (states or {}).items():
            state_segments[name] = Segment(name, type, state_offset)
            state_offset += align(type.nbytes(1))
        return Layout(segments, state_segments, offset, grad_offset, state_offset)

    @property
    def trainable(self) -> list[str]:
        return [name for name, segment in self.params.items() if not segment.frozen]

    def runs(self, without: Collection[str] = ()) -> Iterator[Run]:
        """Trainable segments merged where they are neighbours in parameters and gradients and of one group."""
        current: Run | None = None
        for segment in self.params.values():
            if segment.frozen or segment.name in without:
                continue
            count = align(segment.type.nbytes(1)) // 4
            if (
                current is not None
                and current.group == segment.group
                and current.offset + 4 * current.count == segment.offset
                and current.grad_offset + 4 * current.count == segment.grad_offset
            ):
                current = Run(current.group, current.offset, current.grad_offset, current.count + count)
                continue
            if current is not None:
                yield current
            current = Run(segment.group, segment.offset, segment.grad_offset, count)
        if current is not None:
            yield current
