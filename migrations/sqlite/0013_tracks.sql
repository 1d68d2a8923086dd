-- The tracks that somebody chose; part of an asset's identity, by its segmentation.
ALTER TABLE assets ADD COLUMN video_track INTEGER;
ALTER TABLE assets ADD COLUMN audio_track INTEGER;
-- All tracks of the file as JSON, and which of them were read.
ALTER TABLE assets ADD COLUMN tracks TEXT;
ALTER TABLE job_items ADD COLUMN video_track INTEGER;
ALTER TABLE job_items ADD COLUMN audio_track INTEGER;
