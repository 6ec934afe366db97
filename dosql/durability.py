"""Durability: what a reply waits for."""

from __future__ import annotations

from typing import Literal, get_args

Durability = Literal["local", "bucket"]
"""``local``: what the reply shows is on the disk of this machine; ``bucket``: in the bucket too."""

DURABILITIES: tuple[Durability, ...] = get_args(Durability)
