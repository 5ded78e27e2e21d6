-- The questions a run has told while it was still running: an answer may come before it has stopped.
ALTER TABLE runs ADD COLUMN asked text[];
