"""Random hits on the real table and on the oracle, side by side.

Run it for as long as you like: ``python -m tests.support.rate_play STEPS [SEED]``.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import get_args

from dosql.clock import SystemClock
from dosql.objects.rate_rules import Algorithm, Rule, Verdict
from dosql.objects.rate_table import clean_up, hit, rate_key
from dosql.sqlite.database import Database
from tests.support.rate_oracle import (
    Answer,
    BucketOracle,
    FixedOracle,
    LogOracle,
    SlidingOracle,
)

Oracle = BucketOracle | FixedOracle | LogOracle | SlidingOracle
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
START = 1_700_000_000_000


def oracle_of(rule: Rule) -> Oracle:
    match rule.algorithm:
        case "fixed":
            return FixedOracle(rule.limit, rule.window_ms)
        case "log":
            return LogOracle(rule.limit, rule.window_ms)
        case "sliding":
            return SlidingOracle(rule.limit, rule.window_ms)
        case "bucket" | "gcra":
            leaky = rule.algorithm == "gcra"
            return BucketOracle(rule.limit, rule.window_ms, rule.capacity, leaky)


def answer_of(verdict: Verdict) -> Answer:
    return Answer(verdict.allowed, verdict.remaining, verdict.reset_ms, verdict.retry_after_ms)


def random_rule(chance: random.Random, algorithm: Algorithm) -> Rule:
    limit = chance.choice([1, 2, 3, 7, 10, 50])
    burst = chance.choice([0, 1, 5, 30]) if algorithm in ("bucket", "gcra") else 0
    return Rule(algorithm, limit, chance.choice([1, 10, 97, 1_000, 60_000]), burst)


def step(chance: random.Random, rule: Rule, answer: Answer | None) -> int:
    """How the clock moves: mostly a little, at times just to the edge, far, or back."""
    kind = chance.random()
    if answer is not None and answer.retry and kind < 0.25:
        return answer.retry - chance.choice([0, 1])
    if answer is not None and kind < 0.30:
        return answer.reset - chance.choice([0, 1])
    if kind < 0.40:
        return 0
    if kind < 0.95:
        return chance.randrange(max(2, 2 * rule.window_ms // rule.limit))
    if kind < 0.98:
        return chance.randrange(3 * rule.window_ms)
    return -chance.choice([1, rule.window_ms // 2, rule.window_ms, 3_600_000])


def play(algorithm: Algorithm, steps: int, seed: int, folder: Path) -> list[str]:
    """The differences found."""
    chance = random.Random(f"{seed}/{algorithm}")
    db = Database(str(folder / f"{algorithm}.sqlite"), clock=SystemClock())
    found: list[str] = []
    done = number = 0
    while done < steps:
        number += 1
        rule, now = random_rule(chance, algorithm), START
        games = [(rate_key(number, which), oracle_of(rule)) for which in "ab"]
        answer = None
        for _ in range(min(500, steps - done)):
            done += 1
            now += step(chance, rule, answer)
            key, oracle = chance.choice(games)
            cost = chance.choice([1, 1, 1, 1, min(2, rule.capacity), rule.capacity])
            answer = answer_of(hit(db, rule, key, now, cost))
            expected = oracle.hit(now, cost)
            if answer != expected:
                found.append(f"{rule} at {now - START} cost {cost}: {answer}, not {expected}")
                break
            if done % 8 == 0:
                clean_up(db, START - 10**9, 64)
    db.close()
    return found


if __name__ == "__main__":
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as scratch:
        for each in ALGORITHMS:
            differences = play(each, int(sys.argv[1]), seed, Path(scratch))
            print(f"{each}: {sys.argv[1]} steps, seed {seed}, {len(differences)} mismatches")
            print("\n".join(differences[:5]))
