-- Jobs, their items and deliveries by state: pages and counts read what is asked for, not the whole history.
CREATE INDEX jobs_state ON jobs (state);
CREATE INDEX job_items_state ON job_items (job, state);
CREATE INDEX deliveries_state ON deliveries (state, id);
-- Totals of the library without the rows of its assets.
CREATE INDEX assets_totals ON assets (state, duration_secs);
