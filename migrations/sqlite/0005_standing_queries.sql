-- Where something is told of a job or a standing query (`owner`, its id). The secret signs what is sent,
-- so it is kept as it is; nothing gives it out again.
CREATE TABLE webhooks (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL UNIQUE,
    url TEXT NOT NULL,
    host TEXT NOT NULL,
    secret TEXT NOT NULL
);

-- The outbox: written together with what it tells of, sent until it is taken or given up.
CREATE TABLE deliveries (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    webhook INTEGER NOT NULL REFERENCES webhooks (n) ON DELETE CASCADE,
    event TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_unix_ms INTEGER NOT NULL,
    status INTEGER,
    error TEXT,
    created_unix_ms INTEGER NOT NULL,
    ended_unix_ms INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX deliveries_due ON deliveries (next_unix_ms) WHERE state = 'pending';
CREATE INDEX deliveries_webhook ON deliveries (webhook);

-- `vectors` are those of `model`, with their CRC-32; `source` is what the user gave, from which they can
-- be made anew, and comes last since it may be large and is hardly ever read.
CREATE TABLE standing_queries (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT,
    spec TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    error_code TEXT,
    error_message TEXT,
    created_unix_ms INTEGER NOT NULL,
    updated_unix_ms INTEGER NOT NULL,
    model TEXT NOT NULL,
    crc INTEGER NOT NULL,
    vectors BLOB NOT NULL,
    source TEXT NOT NULL
);

-- At most one for each query and asset, however often the asset is looked at.
CREATE TABLE standing_matches (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    query INTEGER NOT NULL REFERENCES standing_queries (n) ON DELETE CASCADE,
    asset TEXT NOT NULL REFERENCES assets (id) ON DELETE CASCADE,
    space TEXT NOT NULL,
    moments TEXT NOT NULL,
    matched_unix_ms INTEGER NOT NULL,
    UNIQUE (query, asset)
);
CREATE INDEX standing_matches_newest ON standing_matches (query, id);
CREATE INDEX standing_matches_asset ON standing_matches (asset);

-- Assets that standing queries have not been asked about: all enabled ones, or only `query` (an older
-- asset, looked at for a new query). `waits`: not before it is known what scores mean.
CREATE TABLE standing_pending (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    asset TEXT NOT NULL REFERENCES assets (id) ON DELETE CASCADE,
    query INTEGER REFERENCES standing_queries (n) ON DELETE CASCADE,
    waits INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX standing_pending_asset ON standing_pending (asset);
CREATE INDEX standing_pending_query ON standing_pending (query);
