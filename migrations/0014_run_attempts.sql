-- When the attempt under way began, and how those before it were left: later ones tell of them in the trace.
ALTER TABLE runs ADD COLUMN attempt_started_at timestamptz, ADD COLUMN left_attempts jsonb NOT NULL DEFAULT '[]';
