-- Cosine of a clip's own sound and picture, in the finest space that both share; null where there is
-- none, and for clips from before this column until the next start has computed it.
ALTER TABLE clips ADD COLUMN agreement REAL;
