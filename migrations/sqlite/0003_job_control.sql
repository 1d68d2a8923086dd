-- How often an item was tried, and when it may be tried again.
ALTER TABLE job_items ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job_items ADD COLUMN not_before_unix_ms INTEGER NOT NULL DEFAULT 0;
-- Claiming looks at live jobs first: a paused job's items are not walked over.
CREATE INDEX jobs_live ON jobs (n) WHERE state IN ('queued', 'running');
