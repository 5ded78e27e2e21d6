-- For the claim, however many runs wait: the few threads whose state is being written by hand.
CREATE INDEX threads_written ON threads (thread_id) WHERE writing_until IS NOT NULL;
