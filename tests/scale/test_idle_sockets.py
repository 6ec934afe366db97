"""Idle WebSockets keep no object awake and cost little; all of them can still be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scale.idle_sockets import ROUNDS, WAKES_MAX, Figures, measure, raise_descriptors

_KB_PER_SOCKET_MAX = 12
"""Measured: 3 to 5. A task per socket, or what is left of its request, would not fit in."""
_KB_PER_OBJECT_MAX = 60
"""Measured: 22 to 31. What an awake object needs, 200, would not fit in."""


def test_hundreds_of_idle_sockets_keep_no_object_awake(tmp_path: Path) -> None:
    """The same with ten thousand, and their memory: nightly."""
    _check(measure(tmp_path / "data", sockets=500, objects=50, broadcast_to=100))


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_ten_thousand_idle_sockets_cost_a_few_kilobytes_each(tmp_path: Path) -> None:
    raise_descriptors()
    figures = measure(tmp_path / "data", sockets=10_000, objects=1_000, broadcast_to=1_000)
    _check(figures)
    assert figures.kb_per_socket < _KB_PER_SOCKET_MAX
    assert figures.kb_per_object < _KB_PER_OBJECT_MAX


def _check(figures: Figures) -> None:
    print("\n" + "\n".join(figures.lines()))
    assert figures.awake == 0, "every object hibernates under its open sockets"
    assert figures.lost == 0, "every socket stays open"
    assert figures.strangers == 0, "every attachment outlives the hibernation"
    assert len(figures.wakes) == min(figures.objects, WAKES_MAX)
    everybody = ROUNDS * figures.broadcast_to
    assert len(figures.broadcasts) == everybody, "each broadcast reaches everybody"
    assert len(figures.stored_broadcasts) == everybody
