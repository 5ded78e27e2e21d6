-- Many processes on one database.

-- The events of the run are wanted in the database: it is resumable, or a reader is in another process than
-- the one that executes it. A run that nobody follows from elsewhere writes none.
ALTER TABLE runs ADD COLUMN logged boolean NOT NULL DEFAULT false;

-- The events of attempt n count from (n - 1) * 10,000,000.
ALTER TABLE run_events ALTER COLUMN id TYPE bigint;

-- How often a worker of the run went silent. A run that is handed back in order has lost nothing.
ALTER TABLE runs ADD COLUMN losses integer NOT NULL DEFAULT 0;

-- What waits, by user and by thread. Hashes, so that a claim can begin at a place that is random among users
-- and threads, however their ids are made.
CREATE INDEX runs_queue_users ON runs (hashtext(coalesce(user_id, '')), available_at, position)
  WHERE status = 'pending';
CREATE INDEX runs_queue_threads ON runs (uuid_hash(thread_id), position) WHERE status = 'pending';
