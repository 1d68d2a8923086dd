-- CRC-32 of a clip's id, asset, seconds and agreement; null: from before this column, not checked.
ALTER TABLE clips ADD COLUMN crc INTEGER;
-- CRC-32 of what indexing found out of an asset: kind, seconds, pixels. Name, metadata and content are
-- checked against the ledger.
ALTER TABLE assets ADD COLUMN outcome_crc INTEGER;
