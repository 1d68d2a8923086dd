-- One row: whose vectors these are, and how often clips have changed.
CREATE TABLE library (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    model TEXT NOT NULL,
    sequence INTEGER NOT NULL
);

-- Embedding spaces by number, so that a vector's row id can name its space.
CREATE TABLE spaces (
    idx INTEGER PRIMARY KEY CHECK (idx BETWEEN 0 AND 15),
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE assets (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    sha256 TEXT NOT NULL,
    model TEXT NOT NULL,
    segmentation TEXT NOT NULL,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    owned INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    kind TEXT,
    duration_secs REAL NOT NULL DEFAULT 0,
    width INTEGER NOT NULL DEFAULT 0,
    height INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL,
    error_code TEXT,
    error_message TEXT,
    metadata TEXT NOT NULL,
    clips INTEGER NOT NULL DEFAULT 0,
    created_unix_ms INTEGER NOT NULL,
    updated_unix_ms INTEGER NOT NULL,
    UNIQUE (sha256, model, segmentation)
);
CREATE INDEX assets_indexing ON assets (n) WHERE state = 'indexing';

-- AUTOINCREMENT: an id is never used twice, so a stale index entry can never name another clip.
-- lanes: bit (space * 2 + track) is set where the clip has that vector.
CREATE TABLE clips (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    asset INTEGER NOT NULL REFERENCES assets (n) ON DELETE CASCADE,
    start_secs REAL NOT NULL,
    end_secs REAL NOT NULL,
    lanes INTEGER NOT NULL
);
CREATE INDEX clips_asset ON clips (asset, start_secs);

-- id = clip * 32 + space * 2 + track; data: f32 little-endian; crc: CRC-32 of id and data.
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY,
    crc INTEGER NOT NULL,
    data BLOB NOT NULL
);

CREATE TABLE jobs (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    items_total INTEGER NOT NULL,
    items_done INTEGER NOT NULL DEFAULT 0,
    items_failed INTEGER NOT NULL DEFAULT 0,
    clips INTEGER NOT NULL DEFAULT 0,
    media_secs REAL NOT NULL DEFAULT 0,
    error_code TEXT,
    error_message TEXT,
    created_unix_ms INTEGER NOT NULL,
    started_unix_ms INTEGER NOT NULL DEFAULT 0,
    ended_unix_ms INTEGER NOT NULL DEFAULT 0,
    idempotency_key TEXT UNIQUE
);

CREATE TABLE job_items (
    job INTEGER NOT NULL REFERENCES jobs (n) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    path TEXT NOT NULL,
    metadata TEXT NOT NULL,
    state TEXT NOT NULL,
    asset TEXT,
    clips INTEGER NOT NULL DEFAULT 0,
    media_secs REAL NOT NULL DEFAULT 0,
    error_code TEXT,
    error_message TEXT,
    PRIMARY KEY (job, seq)
) WITHOUT ROWID;
-- Claiming reads only what is left to do, however long the history.
CREATE INDEX job_items_queued ON job_items (job, seq) WHERE state = 'queued';
CREATE INDEX job_items_running ON job_items (job, seq) WHERE state = 'running';
