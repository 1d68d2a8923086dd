-- Name shown to people of what an item becomes, where it is not the file's.
ALTER TABLE job_items ADD COLUMN name TEXT;

-- spec: what was asked for, as JSON. job: the newest job of it; settled_unix_ms: the end of that job which
-- has been noted in watch_files.
CREATE TABLE watches (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    spec TEXT NOT NULL,
    job TEXT,
    settled_unix_ms INTEGER NOT NULL DEFAULT 0,
    jobs_made INTEGER NOT NULL DEFAULT 0,
    last_look_unix_ms INTEGER NOT NULL DEFAULT 0,
    error_code TEXT,
    error_message TEXT,
    created_unix_ms INTEGER NOT NULL
);

-- size and mtime: at the last look; taken_…: when the file was last given to a job (null: never).
-- stable: the same at two looks. missing_looks: how often in turn it was not there.
CREATE TABLE watch_files (
    watch INTEGER NOT NULL REFERENCES watches (n) ON DELETE CASCADE,
    path TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    stable INTEGER NOT NULL DEFAULT 0,
    missing_looks INTEGER NOT NULL DEFAULT 0,
    taken_size_bytes INTEGER,
    taken_mtime_ns INTEGER,
    asset TEXT,
    PRIMARY KEY (watch, path)
) WITHOUT ROWID;
CREATE INDEX watch_files_asset ON watch_files (asset) WHERE asset IS NOT NULL;
