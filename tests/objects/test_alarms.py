"""Alarms as they are stored: set, seen, deleted, run, retried and given up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dosql.errors import (
    CorruptError,
    DosqlError,
    InvalidRequestError,
    LimitError,
    ObjectError,
    ObjectResetError,
    OutcomeUnknownError,
    OverloadedError,
    QuotaError,
    UnavailableError,
)
from dosql.limits import ALARM_DATA_BYTES_MAX
from dosql.objects import alarm_store, alarm_table
from dosql.objects.alarm_retries import counts, pause_s
from dosql.objects.alarm_runs import EarliestAlarm
from dosql.objects.alarm_store import AlarmStore
from dosql.objects.alarms import AlarmInfo, Alarms, time_ms
from dosql.sqlite.database import Database
from dosql.testing.clock import ManualClock
from tests.support.plain_access import PlainAccess

NOW = 1_000_000


def no_jitter(low: float, high: float) -> float:
    return 0.0


class Kit:
    """One object's alarms over a real database."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock(now_ms=NOW)
        self.access = PlainAccess(Database(str(path / "object.sqlite"), clock=self.clock))
        self.has_handler = True
        self.wake()

    @property
    def db(self) -> Database:
        return self.access.db

    def wake(self) -> None:
        """A new life of the object: what was only in memory is gone."""
        self.store = AlarmStore(
            self.access, self.clock, has_handler=lambda: self.has_handler, jitter=no_jitter
        )
        self.alarms = Alarms(self.store, self.clock)

    def crash(self) -> None:
        """What was not committed is gone too."""
        self.access.roll_back()
        self.wake()

    def set(self, at_ms: int, name: str = "") -> None:
        self.store.set(name, at_ms)

    def get(self, name: str = "") -> int | None:
        row = self.store.get(name)
        return None if row is None else row.scheduled_ms

    def begin(self, name: str = "") -> alarm_table.AlarmRow:
        """A run begins, at the time at which it is due."""
        row = alarm_table.find(self.db, name)
        assert row is not None
        self.clock.set_time(max(row.at_ms, self.clock.now_ms()))
        run = self.store.begin(name)
        assert run is not None
        return run

    def fail(self, error: BaseException | None = None, name: str = "") -> float | None:
        """A run that fails; in how many seconds it is repeated."""
        run = self.begin(name)
        failure = self.store.failed(run, error or ValueError("no"))
        self.store.ended(run)
        if failure.retry_at_ms is None:
            return None
        return (failure.retry_at_ms - self.clock.now_ms()) / 1000

    def succeed(self, name: str = "") -> None:
        run = self.begin(name)
        self.store.succeeded(run)
        self.store.ended(run)


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    kit = Kit(tmp_path)
    yield kit
    kit.db.close()


def refused(code: str) -> Any:
    return pytest.raises(DosqlError, check=lambda error: error.code == code)


# --- setting and looking up -----------------------------------------------------------------------


def test_an_alarm_is_seen_until_it_is_deleted(kit: Kit) -> None:
    assert kit.get() is None
    kit.set(NOW + 5)
    assert kit.get() == NOW + 5
    kit.set(NOW + 9)
    assert kit.get() == NOW + 9, "there is one of each name"
    assert kit.store.delete("")
    assert kit.get() is None and not kit.store.delete("")


def test_looking_leaves_an_empty_database_empty(kit: Kit) -> None:
    """An object that stored nothing need not exist."""
    assert kit.get() is None and kit.alarms.list() == [] and not kit.alarms.delete("a")
    assert kit.store.due() == [] and alarm_table.earliest(kit.db) is None
    assert not kit.db.in_transaction
    assert kit.db.internal_query("SELECT * FROM sqlite_schema") == []


def test_a_time_that_has_passed_means_now(kit: Kit) -> None:
    kit.set(1)
    assert kit.get() == NOW
    assert kit.store.due() == [""]


@pytest.mark.parametrize(
    "time",
    [0, -1, 0.0, float("nan"), float("inf"), 10**15, True, "1", None,
     datetime(2026, 1, 1), datetime(1969, 1, 1, tzinfo=UTC)],
)  # fmt: skip
def test_what_is_no_time_is_refused(time: Any) -> None:
    with refused("invalid_alarm_time"):
        time_ms(time)


def test_times_are_never_early() -> None:
    assert time_ms(1.2) == 2
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert time_ms(moment) == int(moment.timestamp() * 1000)
    assert time_ms(moment + timedelta(microseconds=1)) == int(moment.timestamp() * 1000) + 1


def test_an_alarm_is_set_and_undone_with_what_is_written_around_it(kit: Kit) -> None:
    kit.set(NOW + 5)
    kit.access.commit()
    kit.set(NOW + 9)
    kit.store.set("other", NOW + 1)
    kit.access.roll_back()
    assert kit.get() == NOW + 5 and kit.get("other") is None


def test_a_class_without_a_handler_has_no_alarms(kit: Kit) -> None:
    kit.has_handler = False
    with refused("no_alarm_handler"):
        kit.set(NOW + 5)
    with refused("no_alarm_handler"):
        kit.alarms.schedule("a", cron="* * * * *")
    assert kit.get() is None


# --- named alarms ---------------------------------------------------------------------------------


def test_alarms_have_names_data_and_an_order(kit: Kit) -> None:
    @dataclass
    class Mail:
        to: str

    kit.alarms.schedule("b", at=datetime.fromtimestamp(2_000, tz=UTC), data={1, 2})
    kit.alarms.schedule("a", after=1.5, data=Mail("x@example.com"))
    kit.alarms.schedule("c", after=timedelta(minutes=1))
    kit.set(NOW + 5)
    assert [(each.name, each.time) for each in kit.alarms.list()] == [
        ("", NOW + 5),
        ("a", NOW + 1_500),
        ("b", 2_000_000),
        ("c", NOW + 60_000),
    ]
    assert [each.data for each in kit.alarms.list()] == [
        None,
        {"to": "x@example.com"},
        {1, 2},
        None,
    ]
    alarm = kit.alarms.get("b")
    assert alarm is not None and (alarm.runs_at, alarm.cron) == (2_000_000, None)
    assert kit.alarms.delete("b") and kit.alarms.get("b") is None


@pytest.mark.parametrize(
    "when",
    [{}, {"at": 5, "after": 5}, {"after": 5, "cron": "* * * * *"}, {"after": -1},
     {"after": timedelta(seconds=-1)}, {"after": float("nan")}, {"after": "5"}, {"after": True}],
)  # fmt: skip
def test_an_alarm_has_exactly_one_time(kit: Kit, when: dict[str, Any]) -> None:
    with refused("invalid_alarm_time"):
        kit.alarms.schedule("a", **when)


@pytest.mark.parametrize("name", ["a" * 257, "é" * 129, "\ud800", "a\0", 5, None, b"a"])
def test_bad_names_are_refused(kit: Kit, name: Any) -> None:
    with refused("invalid_alarm_name"):
        kit.alarms.schedule(name, after=1)
    with refused("invalid_alarm_name"):
        kit.alarms.get(name)


def test_data_must_be_storable_and_small(kit: Kit) -> None:
    kit.alarms.schedule("a", after=1, data=b"x" * (ALARM_DATA_BYTES_MAX - 100))
    with refused("alarm_data_too_large"):
        kit.alarms.schedule("a", after=1, data=b"x" * ALARM_DATA_BYTES_MAX)
    with refused("value_not_storable"):
        kit.alarms.schedule("a", after=1, data=object())


def test_an_object_has_only_so_many_alarms(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm_store, "ALARMS_MAX", 2)
    kit.alarms.schedule("a", after=1)
    kit.alarms.schedule("b", after=1)
    with refused("too_many_alarms") as refusal:
        kit.alarms.schedule("c", after=1)
    assert isinstance(refusal.value, LimitError)
    kit.alarms.schedule("b", after=2)  # not one more


def test_a_wrong_cron_expression_changes_nothing(kit: Kit) -> None:
    kit.alarms.schedule("a", after=1)
    with refused("invalid_cron"):
        kit.alarms.schedule("a", cron="61 * * * *")
    with refused("invalid_timezone"):
        kit.alarms.schedule("a", cron="* * * * *", timezone="Mars")
    assert kit.get("a") == NOW + 1_000


# --- runs -----------------------------------------------------------------------------------------


def test_an_alarm_does_not_begin_before_its_time(kit: Kit) -> None:
    kit.set(NOW + 1)
    assert kit.store.due() == [] and kit.store.begin("") is None
    kit.clock.advance(0.001)
    assert kit.store.due() == [""] and kit.store.begin("") is not None


def test_an_alarm_does_not_begin_twice(kit: Kit) -> None:
    kit.set(NOW)
    run = kit.begin()
    assert kit.store.begin("") is None
    kit.store.ended(run)
    assert kit.store.begin("") is not None


def test_what_is_due_comes_in_the_order_of_its_times(kit: Kit) -> None:
    for name, seconds in (("c", 1), ("a", 3), ("b", 2), ("later", 9)):
        kit.alarms.schedule(name, after=seconds)
    kit.clock.advance(3)
    assert kit.store.due() == ["c", "b", "a"]


def test_a_running_alarm_is_stored_but_not_seen(kit: Kit) -> None:
    kit.set(NOW)
    kit.access.commit()
    run = kit.begin()
    assert kit.get() is None and kit.alarms.list() == []
    assert not kit.store.delete(""), "what runs cannot be stopped"
    kit.crash()
    assert kit.get() == NOW and kit.store.due() == [""]
    del run


def test_a_successful_alarm_is_gone_together_with_what_it_wrote(kit: Kit) -> None:
    kit.set(NOW)
    kit.access.commit()
    kit.succeed()
    assert kit.get() is None
    kit.crash()
    assert kit.get() == NOW, "its end was not committed"
    kit.succeed()
    kit.access.commit()
    kit.crash()
    assert kit.get() is None


def test_a_time_set_by_the_handler_stays_after_its_success(kit: Kit) -> None:
    kit.set(NOW)
    run = kit.begin()
    kit.set(NOW + 7)
    assert kit.get() == NOW + 7
    kit.store.succeeded(run)
    kit.store.ended(run)
    assert kit.get() == NOW + 7


def test_a_time_set_by_the_handler_takes_the_place_of_its_retries(kit: Kit) -> None:
    kit.set(NOW)
    kit.fail()
    kit.fail()
    run = kit.begin()
    kit.set(NOW + 99_000)
    failure = kit.store.failed(run, ValueError())
    kit.store.ended(run)
    assert failure.retry_at_ms is None and not failure.given_up
    assert kit.get() == NOW + 99_000
    assert AlarmInfo.of(kit.begin()).retry_count == 0


def test_a_time_set_by_the_handler_and_rolled_back_was_never_set(kit: Kit) -> None:
    kit.set(NOW)
    kit.access.commit()
    run = kit.begin()
    kit.set(NOW + 7)
    kit.access.roll_back()
    assert kit.get() is None
    kit.store.succeeded(run)
    kit.store.ended(run)
    assert kit.get() is None and alarm_table.earliest(kit.db) is None


def test_deleting_what_the_handler_set_leaves_the_run_as_it_was(kit: Kit) -> None:
    """Delete cannot stop the running one, so a failure still retries it."""
    kit.set(NOW)
    run = kit.begin()
    kit.set(NOW + 7)
    assert kit.store.delete("")
    assert kit.get() is None
    assert kit.store.failed(run, ValueError()).retry_at_ms == NOW + 2_000
    kit.store.ended(run)
    kit.succeed()
    assert alarm_table.earliest(kit.db) is None


def test_a_failure_may_be_written_by_the_next_life(kit: Kit) -> None:
    """The object was reset under way."""
    kit.set(NOW)
    kit.access.commit()
    run = kit.begin()
    kit.set(NOW + 50)  # undone by the reset
    kit.crash()
    failure = kit.store.failed(run, ObjectResetError("reset"))
    assert failure.counted and failure.retry_at_ms == NOW + 2_000


def test_a_late_failure_does_not_touch_a_newer_alarm(kit: Kit) -> None:
    kit.set(NOW)
    run = kit.begin()
    kit.wake()
    kit.set(NOW + 7)
    assert kit.store.failed(run, ValueError()).retry_at_ms is None
    kit.store.succeeded(run)
    assert kit.get() == NOW + 7


# --- retries --------------------------------------------------------------------------------------


def test_six_retries_at_growing_pauses_and_then_it_is_given_up(kit: Kit) -> None:
    kit.set(NOW)
    assert [kit.fail() for _ in range(6)] == [2, 4, 8, 16, 32, 64]
    run = kit.begin()
    info = AlarmInfo.of(run)
    assert (info.retry_count, info.is_retry, info.scheduled_time) == (6, True, NOW)
    failure = kit.store.failed(run, ValueError())
    kit.store.ended(run)
    assert failure.given_up and failure.counted and failure.retry_at_ms is None
    assert kit.get() is None and alarm_table.earliest(kit.db) is None


def test_the_first_run_is_no_retry(kit: Kit) -> None:
    kit.alarms.schedule("a", at=NOW, data=[1])
    assert AlarmInfo.of(kit.begin("a")) == AlarmInfo("a", NOW, 0, False, [1], None)


def test_faults_of_the_surroundings_do_not_count(kit: Kit) -> None:
    kit.set(NOW)
    pauses = [kit.fail(UnavailableError("down")) for _ in range(12)]
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]
    info = AlarmInfo.of(kit.begin())
    assert (info.retry_count, info.is_retry) == (0, True)
    kit.wake()
    assert kit.fail() == 2, "a failure that counts begins its own row of pauses"
    assert kit.fail(UnavailableError("down")) == 2


def test_setting_an_alarm_forgets_its_failures(kit: Kit) -> None:
    kit.set(NOW)
    for _ in range(5):
        kit.fail()
    kit.set(NOW)
    assert kit.fail() == 2


def test_a_waiting_retry_is_seen_with_its_own_time(kit: Kit) -> None:
    kit.alarms.schedule("a", at=NOW)
    kit.fail(name="a")
    alarm = kit.alarms.get("a")
    assert alarm is not None
    assert (alarm.time, alarm.runs_at, alarm.retry_count) == (NOW, NOW + 2_000, 1)


def caused_by(cause: BaseException) -> ObjectResetError:
    """A reset for this reason."""
    error = ObjectResetError("the object was reset")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError(), True),
        (TimeoutError(), True),
        (ObjectError("ValueError: x"), True),
        (ObjectResetError("abort"), True),
        (caused_by(ObjectResetError("abort")), True),
        (caused_by(caused_by(UnavailableError("the disk is gone"))), False),
        (InvalidRequestError("x"), True),
        (QuotaError("the database is full"), True),
        (OverloadedError("a section took too long", code="section_timeout"), True),
        (QuotaError("the disk is full", code="disk_full"), False),
        (UnavailableError("x"), False),
        (OverloadedError("x"), False),
        (OutcomeUnknownError("x"), False),
        (CorruptError("x"), False),
    ],
)
def test_which_failures_count(error: BaseException, expected: bool) -> None:
    assert counts(error) is expected


@given(st.integers(0, 10_000), st.floats(0, 0.25))
def test_a_pause_is_jittered_upwards_and_bounded(failures: int, share: float) -> None:
    plain = min(2.0 ** (failures + 1), 1024.0) if failures < 100 else 1024.0
    assert pause_s(failures, lambda low, high: low + share) == pytest.approx(plain * (1 + share))


# --- cron -----------------------------------------------------------------------------------------


def minute(number: int) -> int:
    """The start of a minute after NOW, which is second 40 of minute 0."""
    return NOW // 60_000 * 60_000 + number * 60_000


def test_a_cron_alarm_goes_on_to_its_next_time(kit: Kit) -> None:
    kit.alarms.schedule("tick", cron="* * * * *", data="d")
    assert kit.get("tick") == minute(1)
    run = kit.begin("tick")
    assert (AlarmInfo.of(run).cron, AlarmInfo.of(run).data) == ("* * * * *", "d")
    assert kit.get("tick") == minute(2), "while it runs, the next time is seen"
    kit.store.succeeded(run)
    kit.store.ended(run)
    kit.access.commit()
    kit.crash()
    assert kit.get("tick") == minute(2)


def test_missed_times_are_made_up_for_by_one_run(kit: Kit) -> None:
    kit.alarms.schedule("tick", cron="* * * * *")
    kit.clock.set_time(minute(100) + 1)
    run = kit.begin("tick")
    assert AlarmInfo.of(run).scheduled_time == minute(1)
    kit.clock.set_time(minute(103) + 1)
    kit.store.succeeded(run)
    kit.store.ended(run)
    assert kit.get("tick") == minute(104)


def test_a_clock_that_goes_back_does_not_repeat_a_cron_alarm(kit: Kit) -> None:
    kit.alarms.schedule("tick", cron="* * * * *")
    run = kit.begin("tick")
    kit.clock.set_time(NOW)
    kit.store.succeeded(run)
    kit.store.ended(run)
    assert kit.get("tick") == minute(2)


def test_a_cron_alarm_that_is_given_up_goes_on_with_its_next_time(kit: Kit) -> None:
    kit.alarms.schedule("tick", cron="* * * * *")
    for _ in range(6):
        kit.fail(name="tick")
    assert kit.fail(name="tick") is None
    row = alarm_table.find(kit.db, "tick")
    assert row is not None and row.retry_count == 0
    assert row.at_ms == (kit.clock.now_ms() // 60_000 + 1) * 60_000


def test_the_handler_of_a_cron_alarm_can_end_it(kit: Kit) -> None:
    kit.alarms.schedule("tick", cron="* * * * *")
    run = kit.begin("tick")
    assert kit.alarms.delete("tick") and not kit.alarms.delete("tick")
    assert kit.alarms.get("tick") is None
    retry_at_ms = kit.store.failed(run, ValueError()).retry_at_ms
    assert retry_at_ms is not None, "what had begun is still retried"
    kit.store.ended(run)
    kit.succeed("tick")
    assert kit.alarms.get("tick") is None and alarm_table.earliest(kit.db) is None


def test_the_handler_of_a_cron_alarm_can_set_it_anew(kit: Kit) -> None:
    kit.alarms.schedule("tick", cron="* * * * *")
    run = kit.begin("tick")
    kit.alarms.schedule("tick", cron="@hourly")
    kit.store.succeeded(run)
    kit.store.ended(run)
    alarm = kit.alarms.get("tick")
    assert alarm is not None and alarm.cron == "@hourly"


# --- what the host's index is told ----------------------------------------------------------------


def test_the_index_hears_of_earlier_times_before_the_commit_and_of_later_ones_after(
    kit: Kit,
) -> None:
    notes: list[int | None] = []
    earliest = EarliestAlarm(kit.store, None, notes.append)

    def commit() -> None:
        earliest.before_commit(kit.db)
        kit.access.commit()

    kit.set(NOW + 50)
    commit()
    kit.store.set("sooner", NOW + 20)
    commit()
    assert notes == [NOW + 50, NOW + 20]
    kit.store.set("sooner", NOW + 30)
    commit()
    kit.store.delete("sooner")
    commit()
    assert notes == [NOW + 50, NOW + 20], "until nothing can undo it, early is safe"
    earliest.settle(kit.db)
    earliest.settle(kit.db)
    assert notes == [NOW + 50, NOW + 20, NOW + 50]
    kit.store.delete("")
    commit()
    earliest.settle(kit.db)
    assert notes[-1] is None


def test_the_index_is_told_again_when_telling_it_failed(kit: Kit) -> None:
    notes: list[int | None] = []

    def note(at_ms: int | None) -> None:
        if not notes:
            notes.append(-1)
            raise UnavailableError("the catalog is being rebuilt")
        notes.append(at_ms)

    earliest = EarliestAlarm(kit.store, None, note)
    kit.set(NOW + 50)
    with pytest.raises(UnavailableError):
        earliest.before_commit(kit.db)
    kit.set(NOW + 50)  # the event is undone, and comes again
    earliest.before_commit(kit.db)
    assert notes == [-1, NOW + 50]


def test_the_index_is_never_late_whatever_happens(tmp_path: Path) -> None:
    """Runs of set, delete, rollback, success, failure and crash, drawn at random."""
    import random

    for seed in range(200):
        folder = tmp_path / str(seed)
        folder.mkdir()
        choose = random.Random(seed)
        kit = Kit(folder)
        noted: list[int | None] = [None]
        earliest = EarliestAlarm(kit.store, None, noted.append)
        for _ in range(30):
            kit.clock.advance(choose.choice([0, 0.5, 3]))
            name = choose.choice(["", "a", "b"])
            match choose.choice(["set", "set", "delete", "run", "fail", "undo", "crash", "settle"]):
                case "set":
                    kit.store.set(name, kit.clock.now_ms() + choose.randrange(9_000))
                case "delete":
                    kit.store.delete(name)
                case "run" | "fail" as what:
                    for due in kit.store.due():
                        run = kit.store.begin(due)
                        assert run is not None
                        if what == "run":
                            kit.store.succeeded(run)
                        else:
                            kit.store.failed(run, ValueError())
                        kit.store.ended(run)
                case "undo":
                    kit.access.roll_back()
                case "crash":
                    kit.crash()
                    earliest = EarliestAlarm(kit.store, noted[-1], noted.append)
                case _:
                    kit.access.roll_back()
                    earliest.settle(kit.db)
                    assert noted[-1] == alarm_table.earliest(kit.db), f"{seed=}"
            if choose.random() < 0.7 and kit.db.in_transaction:
                earliest.before_commit(kit.db)
                kit.access.commit()
            if not kit.db.in_transaction:
                stored = alarm_table.earliest(kit.db)
                at = noted[-1]
                assert stored is None or (at is not None and at <= stored), f"{seed=}"
        kit.db.close()
