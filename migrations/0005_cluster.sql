-- Many processes on one database.

-- The events of the run are wanted in the database: it is resumable, or a reader is in another process than
-- the one that executes it. A run that nobody follows from elsewhere writes none.
ALTER TABLE runs ADD COLUMN logged boolean NOT NULL DEFAULT false;

-- The events of attempt n count from (n - 1) * 10,000,000.
ALTER TABLE run_events ALTER COLUMN id TYPE bigint;
