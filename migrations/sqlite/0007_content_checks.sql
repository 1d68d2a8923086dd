-- Written only to see whether the disk takes bytes.
ALTER TABLE library ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;

-- When an asset's file was last written to, as it was when its bytes were last known to be those of `sha256`,
-- or to be others (null: not noted yet); when they were last hashed; what is wrong with them (null: nothing
-- that is known).
ALTER TABLE assets ADD COLUMN file_mtime_ns INTEGER;
ALTER TABLE assets ADD COLUMN checked_unix_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE assets ADD COLUMN damage TEXT;
CREATE INDEX assets_damage ON assets (n) WHERE damage IS NOT NULL;
CREATE INDEX assets_checked ON assets (checked_unix_ms);
