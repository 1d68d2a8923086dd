-- Rules of retention, in the order in which they are applied.
CREATE TABLE retention_rules (
    position INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    filter TEXT NOT NULL,
    older_than_secs INTEGER NOT NULL,
    by TEXT NOT NULL
);

-- What they deleted and when; a run without an end was cut off.
CREATE TABLE retention_runs (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    started_unix_ms INTEGER NOT NULL,
    ended_unix_ms INTEGER NOT NULL DEFAULT 0,
    assets INTEGER NOT NULL DEFAULT 0,
    clips INTEGER NOT NULL DEFAULT 0,
    by_rule TEXT NOT NULL DEFAULT '{}'
);
