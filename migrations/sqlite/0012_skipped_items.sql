-- Items that were left out, each with its reason, and items that were done of which only a part could be read.
ALTER TABLE jobs ADD COLUMN items_skipped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN items_partial INTEGER NOT NULL DEFAULT 0;
-- What was indexed of a path before.
CREATE INDEX assets_path ON assets (path) WHERE owned = 0;
-- Where else the bytes of an asset were found.
CREATE INDEX job_items_asset ON job_items (asset) WHERE asset IS NOT NULL;
