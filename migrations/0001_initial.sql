-- Resources of the LangGraph API. Column names are the API's own.

CREATE TABLE assistants (
  assistant_id uuid PRIMARY KEY,
  graph_id text NOT NULL,
  name text NOT NULL,
  description text,
  config jsonb NOT NULL DEFAULT '{}',
  context jsonb NOT NULL DEFAULT '{}',
  metadata jsonb NOT NULL DEFAULT '{}',
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX assistants_graph_id ON assistants (graph_id);
CREATE INDEX assistants_metadata ON assistants USING gin (metadata jsonb_path_ops);

CREATE TABLE assistant_versions (
  assistant_id uuid NOT NULL REFERENCES assistants ON DELETE CASCADE,
  version integer NOT NULL,
  graph_id text NOT NULL,
  name text NOT NULL,
  description text,
  config jsonb NOT NULL,
  context jsonb NOT NULL,
  metadata jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (assistant_id, version)
);

CREATE TABLE threads (
  thread_id uuid PRIMARY KEY,
  status text NOT NULL DEFAULT 'idle' CHECK (status IN ('idle', 'busy', 'interrupted', 'error')),
  -- What the status is while no run is active.
  resting_status text NOT NULL DEFAULT 'idle' CHECK (resting_status IN ('idle', 'interrupted', 'error')),
  metadata jsonb NOT NULL DEFAULT '{}',
  config jsonb NOT NULL DEFAULT '{}',
  -- The state after the last run or update, for search and for reading a thread without its graph.
  values jsonb,
  interrupts jsonb NOT NULL DEFAULT '{}',
  error jsonb,
  -- Pending and running runs. Kept on the row, so that two transactions that both look before they write
  -- meet at the row's lock: a thread is busy exactly while this is above 0.
  active_runs integer NOT NULL DEFAULT 0 CHECK (active_runs >= 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  state_updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX threads_created_at ON threads (created_at DESC, thread_id);
CREATE INDEX threads_updated_at ON threads (updated_at DESC, thread_id);
CREATE INDEX threads_metadata ON threads USING gin (metadata jsonb_path_ops);

-- A run is its own queue entry. A stateless run has a thread_id that no thread row carries, so there is no
-- foreign key; deleting a thread deletes its runs in the same statement.
CREATE TABLE runs (
  run_id uuid PRIMARY KEY,
  thread_id uuid NOT NULL,
  assistant_id uuid NOT NULL,
  graph_id text NOT NULL,
  status text NOT NULL CHECK (status IN ('pending', 'running', 'success', 'error', 'timeout', 'interrupted')),
  metadata jsonb NOT NULL DEFAULT '{}',
  -- json, not jsonb: kept exactly as the client sent it, and cheaper to write.
  kwargs json NOT NULL,
  multitask_strategy text NOT NULL,
  -- The authenticated identity that asked for the run.
  user_id text,
  -- No thread row, no checkpoints; the row itself is swept some time after the run ended.
  temporary boolean NOT NULL DEFAULT false,
  -- What the server knows for the trace: trigger, traceparent, assistant name and version.
  origin json NOT NULL DEFAULT '{}',
  resumed_from uuid,
  -- Order in the queue; a thread's runs start in this order.
  position bigint GENERATED ALWAYS AS IDENTITY,
  available_at timestamptz NOT NULL DEFAULT now(),
  -- The lease. Only the worker that holds it may write the run's result.
  attempt integer NOT NULL DEFAULT 0,
  worker_id uuid,
  lease_expires_at timestamptz,
  -- Set when a client asks to stop a run that a worker holds: 'interrupt' or 'rollback'.
  cancel_action text,
  cancel_reason text,
  -- Whether the run stopped at an interrupt; the API calls that run a success.
  interrupted boolean NOT NULL DEFAULT false,
  output json,
  error json,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  ended_at timestamptz
);
CREATE INDEX runs_thread ON runs (thread_id, position DESC);
CREATE INDEX runs_queue ON runs (available_at, position) WHERE status = 'pending';
CREATE INDEX runs_leases ON runs (lease_expires_at) WHERE status = 'running';
CREATE INDEX runs_swept ON runs (ended_at) WHERE temporary;
-- The rule of the engine: at most one running run per thread.
CREATE UNIQUE INDEX runs_one_running_per_thread ON runs (thread_id) WHERE status = 'running';

-- The stream of a resumable run, for readers that come back after this process is gone.
CREATE TABLE run_events (
  run_id uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
  id integer NOT NULL,
  event text NOT NULL,
  data text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (run_id, id)
);

-- The tables of LangGraph's PostgresSaver, at its migration 4, so that it can read what this server writes.
CREATE TABLE checkpoint_migrations (
  v integer PRIMARY KEY
);
INSERT INTO checkpoint_migrations (v) VALUES (0), (1), (2), (3), (4);

CREATE TABLE checkpoints (
  thread_id text NOT NULL,
  checkpoint_ns text NOT NULL DEFAULT '',
  checkpoint_id text NOT NULL,
  parent_checkpoint_id text,
  type text,
  checkpoint jsonb NOT NULL,
  metadata jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
);

CREATE TABLE checkpoint_blobs (
  thread_id text NOT NULL,
  checkpoint_ns text NOT NULL DEFAULT '',
  channel text NOT NULL,
  version text NOT NULL,
  type text NOT NULL,
  blob bytea,
  PRIMARY KEY (thread_id, checkpoint_ns, channel, version)
);

CREATE TABLE checkpoint_writes (
  thread_id text NOT NULL,
  checkpoint_ns text NOT NULL DEFAULT '',
  checkpoint_id text NOT NULL,
  task_id text NOT NULL,
  idx integer NOT NULL,
  channel text NOT NULL,
  type text,
  blob bytea NOT NULL,
  -- Ours: the order a superstep's writes are applied in. PostgresSaver does not name it, so it does no harm.
  task_path text NOT NULL DEFAULT '',
  PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
);
