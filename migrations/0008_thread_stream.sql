-- The stream of a thread is the events of its runs, one run after another. A run takes its place when it starts,
-- or when it is stopped before it could: the order of creation is not the order of execution. The counter is
-- kept on the thread, so that a place is never given twice, even after its run was deleted.
ALTER TABLE threads ADD COLUMN last_stream_position integer NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN stream_position integer;
-- Two statements that take a place at the same time meet here.
CREATE UNIQUE INDEX runs_stream ON runs (thread_id, stream_position) WHERE stream_position IS NOT NULL;
