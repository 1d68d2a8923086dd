-- Counts the changes that people were told of, in the transaction of each change. The ledger beside the
-- database notes the count after every one of them, so that a database which is older than what was
-- promised shows itself.
ALTER TABLE library ADD COLUMN acknowledged INTEGER NOT NULL DEFAULT 0;

-- Not the path: uploads of a folder that was moved get theirs changed at start.
CREATE TRIGGER acknowledge_asset AFTER INSERT ON assets
BEGIN UPDATE library SET acknowledged = acknowledged + 1; END;
CREATE TRIGGER acknowledge_asset_gone AFTER DELETE ON assets
BEGIN UPDATE library SET acknowledged = acknowledged + 1; END;
CREATE TRIGGER acknowledge_asset_changed AFTER UPDATE OF sha256, name, metadata ON assets
BEGIN UPDATE library SET acknowledged = acknowledged + 1; END;

CREATE TRIGGER acknowledge_job AFTER INSERT ON jobs
BEGIN UPDATE library SET acknowledged = acknowledged + 1; END;
-- Cancelled, paused, resumed, tried again: what people ask for, not what a job does by itself.
CREATE TRIGGER acknowledge_job_changed AFTER UPDATE OF state ON jobs
WHEN NEW.state IN ('cancelled', 'paused') OR OLD.state IN ('cancelled', 'paused', 'done', 'failed')
BEGIN UPDATE library SET acknowledged = acknowledged + 1; END;

CREATE TRIGGER acknowledge_standing_query AFTER INSERT ON standing_queries
BEGIN UPDATE library SET acknowledged = acknowledged + 1; END;
CREATE TRIGGER acknowledge_standing_query_gone AFTER DELETE ON standing_queries
BEGIN UPDATE library SET acknowledged = acknowledged + 1; END;
CREATE TRIGGER acknowledge_standing_query_changed AFTER UPDATE OF name, spec, enabled ON standing_queries
BEGIN UPDATE library SET acknowledged = acknowledged + 1; END;

CREATE TRIGGER acknowledge_watch AFTER INSERT ON watches
BEGIN UPDATE library SET acknowledged = acknowledged + 1; END;
CREATE TRIGGER acknowledge_watch_gone AFTER DELETE ON watches
BEGIN UPDATE library SET acknowledged = acknowledged + 1; END;

CREATE TRIGGER acknowledge_retention_rule AFTER INSERT ON retention_rules
BEGIN UPDATE library SET acknowledged = acknowledged + 1; END;
CREATE TRIGGER acknowledge_retention_rule_gone AFTER DELETE ON retention_rules
BEGIN UPDATE library SET acknowledged = acknowledged + 1; END;
