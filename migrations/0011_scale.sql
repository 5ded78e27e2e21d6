-- For the claim, however many runs wait: the first waiting run of a thread, and the few threads whose state is
-- being written by hand.
CREATE INDEX runs_waiting ON runs (thread_id, position) WHERE status = 'pending';
CREATE INDEX threads_written ON threads (thread_id) WHERE writing_until IS NOT NULL;
