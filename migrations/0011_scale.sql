-- For the claim, however many runs wait: the few threads whose state is being written by hand.
CREATE INDEX threads_written ON threads (thread_id) WHERE writing_until IS NOT NULL;
-- For a search by status, and for counting what it finds: few threads of many wait for an answer, or failed.
CREATE INDEX threads_status ON threads (status, created_at DESC, thread_id);
