"""The faults of the seeds' sample code that are about security: where each of them is tested.

The map names a test for every one; that all of them exist is tested here, and so are the few that
have no better place.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from dosql.clock import SystemClock
from dosql.errors import SqlError
from dosql.sqlite.database import Database
from dosql.sqlite.migrations import apply_migrations, load_migrations
from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[2]
FAULTS = {
    # Seed 0: Hono and durable objects.
    "0 L46-49 Upgrade compared by case, no Origin, no token": (
        "server/test_handshakes.py::test_a_wrong_handshake_gets_the_error_shape",
        "security/test_sessions.py::test_a_page_opens_a_websocket_only_if_its_origin_is_listed",
        "security/test_sessions.py::test_a_websocket_is_refused_before_it_is_accepted",
    ),
    "0 L57-63 frames unguarded": (
        "seeds/test_live_counter.py::test_seed_1_4_pings_in_any_spelling_and_unknown_messages",
        "server/test_object_sockets.py::test_a_message_beyond_the_setting_closes_with_1009",
    ),
    "0 L70-78 a broadcast without a bound": (
        "server/test_object_sockets.py::"
        "test_a_client_that_reads_too_slowly_is_closed_with_4008_and_holds_up_nobody",
    ),
    "0 L117 the request id is told to nobody": (
        "security/test_web.py::test_what_was_not_foreseen_says_nothing_but_its_request_id",
        "server/test_error_responses.py::test_seed_2_65_the_context_reaches_the_log",
    ),
    "0 L122 every caller shares one object": (
        "security/test_tenant_matrix.py::test_no_token_crosses_to_another_tenant",
    ),
    # Seed 1: the live counter.
    "1 L42-47 any name creates an object": (
        "seeds/test_live_counter.py::test_seed_1_12_who_only_watches_creates_nothing",
        "security/test_tenant_matrix.py::test_names_that_nobody_has_leave_no_trace",
        "server/test_object_routes.py::test_only_the_admin_token_opens_the_routes_of_objects",
    ),
    "1 L112 half-open peers live for ever": (
        "server/test_object_sockets.py::test_a_client_that_has_vanished_is_found_out_by_pings",
    ),
    "1 L361-373 a token in the query, never looked at again": (
        "security/test_sessions.py::test_a_websocket_is_let_in_by_header_subprotocol_or_ticket",
        "security/test_sessions.py::"
        "test_an_open_websocket_is_closed_within_5_s_of_the_end_of_its_session",
    ),
    "1 L422 CORS is thought to protect WebSockets": (
        "seeds/test_live_counter.py::test_seed_1_12_pages_of_other_origins_are_kept_out",
    ),
    # Seed 2: the database guide.
    "2 L116-118 arbitrary SQL without gate, limit or deadline": (
        "security/test_sql_attacks.py::test_an_attack_meets_what_it_must_cold_warm_and_in_a_batch",
        "security/test_sql_grammar.py::"
        "test_13_400_random_statements_and_6_700_compared_with_plain_sqlite",
    ),
    "2 L118 /query writes": (
        "sqlite/test_statements.py::test_read_only_refuses_what_writes_although_it_returns_rows",
    ),
    "2 L136, L446-460 the object comes from unauthenticated input": (
        "server/test_gate.py::test_no_combination_of_sources_lets_a_token_reach_another_tenant",
    ),
    "2 L314-348 bodies are cast and not validated": (
        "server/test_bad_input.py::test_bad_input_is_refused_with_its_status_and_code",
        "security/test_openapi_fuzz.py::"
        "test_schemathesis_finds_no_server_error_and_no_violation_of_the_document",
    ),
    "2 L352 errors tell the engine's text": (
        "security/test_web.py::test_seed_2_33_every_reply_has_the_secure_headers_errors_too",
        "server/test_error_responses.py::"
        "test_seed_2_38_2_68_an_unforeseen_failure_is_logged_and_not_told",
    ),
    "2 L464 X-Tenant-ID is believed before the token": (
        "security/test_tenant_matrix.py::test_no_token_crosses_to_another_tenant",
    ),
    "2 L468-472 any first label of any host is a tenant": (
        "server/test_gate.py::test_exactly_one_label_below_the_base_domain_names_a_tenant",
        "server/test_gate.py::test_without_a_base_domain_the_host_means_nothing",
    ),
    "2 L478 a default tenant mixes data": (
        "server/test_gate.py::test_a_default_tenant_serves_requests_that_name_none",
        "server/test_bad_input.py::test_bad_input_is_refused_with_its_status_and_code",
    ),
    "2 L502-524 the scheme, the challenge, the causes": (
        "server/test_gate.py::test_the_scheme_is_not_case_sensitive",
        "server/test_gate.py::test_every_401_has_a_challenge_and_invalid_tokens_look_alike",
        "security/test_sessions.py::test_seed_2_22_and_2_23_all_tokens_that_are_none_look_alike",
    ),
    "2 L509-521 a check in two steps": (
        "security/test_sessions.py::test_plain_sql_that_ends_a_session_is_seen_by_the_next_request",
    ),
    "2 L514 an expiry that cannot be read never comes": (
        "security/test_seed_faults.py::test_an_expiry_that_is_no_number_cannot_be_stored",
        "security/test_seed_faults.py::"
        "test_a_token_cannot_be_asked_for_with_an_expiry_that_is_none",
        "server/test_gate.py::test_an_expired_token_is_invalid",
    ),
    "2 L534 a role is looked at before there is a user": (
        "security/test_sessions.py::test_seed_2_36_nobody_lists_users_without_a_token",
        "security/test_sessions.py::test_seed_2_24_a_role_that_a_route_requires_is_named",
    ),
    "2 L564 CF-Connecting-IP is believed": (
        "security/test_rate_limits.py::test_the_address_is_the_peers_whatever_the_client_says",
        "security/test_rate_limits.py::"
        "test_behind_a_named_proxy_the_last_address_that_is_not_a_proxys_counts",
    ),
    "2 L567-577 rate_limits is in the reach of SQL": (
        "security/test_rate_limits.py::test_a_tenant_can_neither_see_nor_touch_its_counters",
        "security/test_login_limits.py::test_a_tenant_can_neither_see_nor_touch_its_attempts",
    ),
    "2 L568-577 of many at once all pass": (
        "security/test_rate_limits.py::test_64_clients_at_once_get_exactly_the_limit",
        "security/test_login_limits.py::"
        "test_no_more_than_the_limit_reach_the_password_however_many_come_at_once",
    ),
    "2 L574-581 no Retry-After, no Reset": (
        "security/test_rate_limits.py::"
        "test_seed_2_25_and_2_34_the_101st_request_of_a_minute_is_refused",
        "security/test_rate_limits.py::"
        "test_the_wait_in_whole_seconds_is_enough_and_a_second_less_is_not",
    ),
    "2 L577, L951 rows are never deleted": (
        "security/test_rate_limits.py::"
        "test_cleaning_up_forgets_what_says_nothing_any_more_and_only_that",
        "security/test_login_limits.py::"
        "test_their_number_is_bounded_and_who_must_wait_longest_is_kept",
    ),
    "2 L683-713 numbers that are half numbers, wildcards": (
        "security/test_sessions.py::"
        "test_seed_2_28_and_2_36_users_are_listed_newest_first_page_by_page",
    ),
    "2 L687, L857 everybody lists users, with all columns": (
        "security/test_sessions.py::test_seed_2_36_nobody_lists_users_without_a_token",
    ),
    "2 L836, L882, L1430 URLs and whole errors are logged": (
        "security/test_web.py::test_no_secret_reaches_the_log_or_a_file",
        "security/test_canaries.py::test_a_server_that_logs_a_token_fails_its_test",
    ),
    "2 L837 CORS for everybody": (
        "security/test_web.py::test_only_listed_origins_read_errors_that_no_route_has_seen",
    ),
    "2 L840 scanners create objects": (
        "security/test_tenant_matrix.py::test_names_that_nobody_has_leave_no_trace",
        "server/test_health.py::test_health_creates_no_tenant",
    ),
    "2 L840-843 the limiter sits behind the tenant": (
        "security/test_rate_limits.py::"
        "test_a_limit_of_the_node_holds_before_any_tenant_is_looked_at",
    ),
    "2 L846-853 health asks a tenant and tells errors": (
        "server/test_health.py::test_live_and_ready_answer_without_a_token",
    ),
    "2 L905-946 no password, logout, rotation, idle end": (
        "security/test_sessions.py::"
        "test_a_refresh_gives_another_token_and_the_old_one_is_dead_at_once",
        "security/test_sessions.py::test_a_logout_ends_this_session_and_no_other",
    ),
    "2 L928, L943 sessions outlive their user": (
        "sqlite/test_migrations.py::test_deleting_a_user_deletes_what_is_theirs",
        "security/test_sql_attacks.py::"
        "test_a_user_is_deleted_with_the_sessions_although_nobody_may_touch_those",
    ),
    "2 L940 tokens in plain text, readable by SQL": (
        "security/test_tenant_matrix.py::test_no_secret_is_found_anywhere_in_plain_text",
        "security/test_canaries.py::test_a_server_that_stores_a_secret_of_a_user_fails_its_test",
        "security/test_imports.py::"
        "test_a_file_with_what_no_sql_could_have_made_is_refused_and_leaves_nothing",
    ),
    "2 L1257-1296 streams for everybody": ("server/test_changes.py::test_nobody_else_may_follow",),
    "2 L1266-1281 streams that never end": (
        "security/test_resources.py::test_streams_that_are_abandoned_leave_nothing_behind",
    ),
    "2 L1273-1277 events can be injected": (
        "security/test_web.py::test_text_of_a_tenant_breaks_no_stream_of_events",
    ),
    # Seeds 3 and 4: patterns.
    "3 L122-136 window and limit by the caller": (
        "security/test_rate_limits.py::test_a_policy_that_cannot_be_is_refused_at_the_start",
        "patterns/test_rate_limiter.py::test_wrong_questions_are_refused",
    ),
    "3 L607 URLs with tokens are logged": (
        "security/test_web.py::test_no_secret_reaches_the_log_or_a_file",
    ),
    "4 L90-98 text of any type and size is sent to all": (
        "patterns/test_websocket_room.py::test_messages_too_long_are_refused",
    ),
    "4 L151-152, L193 the identifier itself is stored": (
        "security/test_login_limits.py::test_neither_addresses_nor_accounts_are_stored",
    ),
}


def test_every_fault_of_the_seeds_has_a_test_that_exists() -> None:
    tests: dict[str, set[str]] = {}
    missing: list[str] = []
    for fault, names in FAULTS.items():
        assert names, fault
        for name in names:
            file, _, function = name.partition("::")
            path = ROOT / "tests" / file
            if file not in tests:
                nodes = ast.walk(ast.parse(path.read_text())) if path.exists() else iter(())
                kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
                tests[file] = {each.name for each in nodes if isinstance(each, kinds)}
            if function not in tests[file]:
                missing.append(f"{fault}: {name}")
    assert missing == []


@pytest.mark.parametrize("value", ["never", "", "2999-01-01", "Infinity", None, b"\xff"])
def test_an_expiry_that_is_no_number_cannot_be_stored(value: object, tmp_path: Path) -> None:
    """In the sample ``new Date(bad) < now`` is false, so such a session never ended."""
    db = Database(str(tmp_path / "t.sqlite"), clock=SystemClock())
    apply_migrations(db, load_migrations(ROOT / "migrations"), now_ms=1)
    db.internal_run("INSERT INTO users (name, email) VALUES ('A', 'a@example.com')")
    sql = "INSERT INTO sessions (token_hash, user_id, expires_at) VALUES (randomblob(32), 1, ?)"
    with pytest.raises(SqlError):
        db.internal_run(sql, (value,))  # type: ignore[arg-type]
    assert db.internal_run(sql, (2,)) == 1
    db.close()


@pytest.mark.parametrize("value", [b'"never"', b'""', b"0", b"-1", b"1e300", b"0.5", b"[1]"])
def test_a_token_cannot_be_asked_for_with_an_expiry_that_is_none(
    value: bytes, shared_server: ServerProcess
) -> None:
    tenant = shared_server.new_tenant().encode()
    body = b'{"tenant": "%b", "access": "read-only", "expiresIn": %b}' % (tenant, value)
    reply = shared_server.request("POST", "/admin/tokens", content=body)
    assert reply.status == 400, reply.body
