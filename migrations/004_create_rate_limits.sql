-- One row per key, whatever the number of hits: the generic cell rate algorithm keeps only the
-- time at which the key would be idle again.
CREATE TABLE rate_limits (
    key BLOB PRIMARY KEY, -- SHA-256 of policy, kind and value: never what a user sent
    tat INTEGER NOT NULL -- theoretical arrival time, milliseconds since the Unix epoch
) STRICT, WITHOUT ROWID;

CREATE INDEX idx_rate_limits_tat ON rate_limits (tat); -- to find those to delete
