import { ServerError } from "../errors.ts";
import { mergeRows } from "./checkpoint-rows.ts";
import type { SaveRows, WriteRow } from "./checkpoint-rows.ts";
import type { Queryable } from "./database.ts";

/** Ties rows to a run's lease: they are written only while this attempt of the run is the running one. */
export interface LeaseGuard {
  runId: string;
  attempt: number;
}

/** Ties rows to whoever writes a thread's state by hand: they are written only while he holds the thread. */
export interface WriterGuard {
  threadId: string;
  writer: string;
}

export type SaveGuard = LeaseGuard | WriterGuard;

export interface GuardedRows {
  rows: SaveRows;
  guard: SaveGuard | undefined;
}

/**
 * Writes all rows in one statement, which is one round trip and one commit, and returns the guards that
 * were no longer held: nothing of theirs was written.
 *
 * The rows of the runs are locked against a change of hands until the rows are there, in the order of their
 * ids: none of them appears after the next attempt began to read. The thread of a writer is locked against
 * deletion, so that nothing is left of a thread that is gone.
 */
export async function saveRows(
  database: Queryable,
  parts: readonly GuardedRows[],
): Promise<ReadonlySet<SaveGuard>> {
  const statement = new Statement();
  const guards = [...new Set(parts.flatMap(({ guard }) => guard ?? []))];
  statement.addGuards(guards);
  statement.addRows(mergeGuarded(parts, guards));
  if (statement.isEmpty) return new Set();
  const { rows } = await database.query<{ held: number[] | null }>(
    statement.text,
    statement.params,
  );
  const held = new Set(rows[0]?.held ?? []);
  return new Set(guards.filter((_, index) => !held.has(index + 1)));
}

/** Locks a run against a change of hands for the rest of the transaction. Rejects with `conflict` if it has changed. */
export async function assertHeld(tx: Queryable, { runId, attempt }: LeaseGuard): Promise<void> {
  const { rows } = await tx.query(
    "SELECT 1 FROM runs WHERE run_id = $1 AND attempt = $2 AND status = 'running' FOR SHARE",
    [runId, attempt],
  );
  if (rows.length > 0) return;
  throw new ServerError("conflict", `Run ${runId} is no longer held by its attempt ${attempt}.`);
}

/** `guard` is the number of the row's guard, counted from 1; 0 is none. */
type Guarded<Row> = Row & { guard: number };

interface GuardedSet {
  checkpoints: Guarded<SaveRows["checkpoints"][number]>[];
  blobs: Guarded<SaveRows["blobs"][number]>[];
  writes: Guarded<WriteRow>[];
}

/** Merges within a guard only: a row that is not written must not stand in for one that is. */
function mergeGuarded(parts: readonly GuardedRows[], guards: readonly SaveGuard[]): GuardedSet {
  const set: GuardedSet = { checkpoints: [], blobs: [], writes: [] };
  for (const guard of [undefined, ...guards]) {
    const own = parts.filter((part) => part.guard === guard).map((part) => part.rows);
    if (own.length === 0) continue;
    const rows = mergeRows(own);
    const number = guard === undefined ? 0 : guards.indexOf(guard) + 1;
    for (const row of rows.checkpoints) set.checkpoints.push({ ...row, guard: number });
    for (const row of rows.blobs) set.blobs.push({ ...row, guard: number });
    for (const row of rows.writes) set.writes.push({ ...row, guard: number });
  }
  return set;
}

/**
 * All values travel as one `bytea` and are cut out of it by position: the driver sends a buffer as it is,
 * where an array of values would be turned into text with every quote escaped.
 */
class Statement {
  readonly #chunks: Uint8Array[] = [];
  readonly #params: unknown[] = [null];
  readonly #ctes: string[] = [];
  #byteCount = 0;
  #guarded = false;
  #inserts = 0;

  get isEmpty(): boolean {
    return this.#inserts === 0;
  }

  get text(): string {
    const result = this.#guarded ? "(SELECT array_agg(number) FROM held)" : "NULL";
    return `WITH ${this.#ctes.join(",\n")}\nSELECT ${result} AS held`;
  }

  get params(): readonly unknown[] {
    return [Buffer.concat(this.#chunks, this.#byteCount), ...this.#params.slice(1)];
  }

  addGuards(guards: readonly SaveGuard[]): void {
    if (guards.length === 0) return;
    this.#guarded = true;
    const numbered = guards.map((guard, index) => ({ ...guard, number: index + 1 }));
    const leases = numbered.filter((guard) => "runId" in guard);
    const writers = numbered.filter((guard) => "writer" in guard);
    const parts: string[] = [];
    if (leases.length > 0) {
      const rows = this.#rows(leases, { runId: "uuid", attempt: "int", number: "int" });
      this.#ctes.push(`leases AS (
        SELECT g.number FROM ${rows} AS g (run_id, attempt, number)
        JOIN runs r USING (run_id, attempt) WHERE r.status = 'running' ORDER BY r.run_id FOR SHARE OF r
      )`);
      parts.push("SELECT number FROM leases");
    }
    if (writers.length > 0) {
      const rows = this.#rows(writers, { threadId: "uuid", writer: "uuid", number: "int" });
      this.#ctes.push(`writers AS (
        SELECT g.number FROM ${rows} AS g (thread_id, writer, number)
        JOIN threads t USING (thread_id, writer) WHERE t.writing_until > now() FOR KEY SHARE OF t
      )`);
      parts.push("SELECT number FROM writers");
    }
    this.#ctes.push(`held AS (${parts.join(" UNION ALL ")})`);
  }

  #rows<Row>(rows: readonly Row[], columns: Partial<Record<keyof Row, string>>): string {
    const arrays = Object.entries(columns).map(
      ([name, type]) =>
        `${this.#param(rows.map((row) => row[name as keyof Row]))}::${type as string}[]`,
    );
    return `unnest(${arrays.join(", ")})`;
  }

  addRows({ checkpoints, blobs, writes }: GuardedSet): void {
    this.#insert("checkpoint_blobs", blobs, {
      columns: {
        thread_id: ["text", (row) => row.threadId],
        checkpoint_ns: ["text", (row) => row.namespace],
        channel: ["text", (row) => row.channel],
        version: ["text", (row) => row.version],
        type: ["text", (row) => row.type],
        blob: ["bytea", (row) => row.bytes],
      },
      onConflict: "DO NOTHING",
    });
    this.#insert("checkpoints", checkpoints, {
      columns: {
        thread_id: ["text", (row) => row.threadId],
        checkpoint_ns: ["text", (row) => row.namespace],
        checkpoint_id: ["text", (row) => row.checkpointId],
        parent_checkpoint_id: ["text", (row) => row.parentId],
        checkpoint: ["jsonb", (row) => row.checkpoint],
        metadata: ["jsonb", (row) => row.metadata],
      },
      onConflict: `(thread_id, checkpoint_ns, checkpoint_id) DO UPDATE
        SET checkpoint = EXCLUDED.checkpoint, metadata = EXCLUDED.metadata`,
    });
    this.#insertWrites(
      writes.filter(({ replaces }) => !replaces),
      "DO NOTHING",
    );
    this.#insertWrites(
      writes.filter(({ replaces }) => replaces),
      `(thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE
        SET channel = EXCLUDED.channel, type = EXCLUDED.type, blob = EXCLUDED.blob`,
    );
  }

  #insertWrites(writes: readonly Guarded<WriteRow>[], onConflict: string): void {
    this.#insert("checkpoint_writes", writes, {
      columns: {
        thread_id: ["text", (row) => row.threadId],
        checkpoint_ns: ["text", (row) => row.namespace],
        checkpoint_id: ["text", (row) => row.checkpointId],
        task_id: ["text", (row) => row.taskId],
        idx: ["int", (row) => row.idx],
        channel: ["text", (row) => row.channel],
        type: ["text", (row) => row.type],
        task_path: ["text", (row) => row.taskPath],
        blob: ["bytea", (row) => row.bytes],
      },
      onConflict,
    });
  }

  #insert<Row extends { guard: number }>(
    table: string,
    rows: readonly Row[],
    shape: { columns: Record<string, Column<Row>>; onConflict: string },
  ): void {
    if (rows.length === 0) return;
    const inputs: Input[] = [];
    const values: string[] = [];
    for (const [name, column] of Object.entries(shape.columns)) {
      const value = isSliced(column)
        ? this.#slices(inputs, column[0], rows.map(column[1]))
        : addInput(inputs, column[0], rows.map(column[1]));
      values.push(`${value} AS ${name}`);
    }
    let where = "";
    if (this.#guarded) {
      const guard = addInput(
        inputs,
        "int",
        rows.map((row) => row.guard),
      );
      where = `WHERE ${guard} = 0 OR ${guard} IN (SELECT number FROM held)`;
    }
    const arrays = inputs.map(({ type, values: list }) => `${this.#param(list)}::${type}[]`);
    const names = inputs.map((_, index) => `c${index}`);
    this.#inserts += 1;
    this.#ctes.push(`i${this.#inserts} AS (
      INSERT INTO ${table} (${Object.keys(shape.columns).join(", ")})
      SELECT ${values.join(", ")}
      FROM unnest(${arrays.join(", ")}) AS r (${names.join(", ")})
      ${where}
      ON CONFLICT ${shape.onConflict}
    )`);
  }

  /** Appends the values to the payload; the expression cuts a row's value out of it again. */
  #slices(inputs: Input[], type: "bytea" | "jsonb", values: readonly Uint8Array[]): string {
    const starts: number[] = [];
    for (const value of values) {
      starts.push(this.#byteCount + 1);
      this.#chunks.push(value);
      this.#byteCount += value.byteLength;
    }
    const start = addInput(inputs, "int", starts);
    const size = addInput(
      inputs,
      "int",
      values.map((value) => value.byteLength),
    );
    const slice = `substring($1::bytea FROM ${start} FOR ${size})`;
    return type === "bytea" ? slice : `convert_from(${slice}, 'UTF8')::jsonb`;
  }

  #param(value: unknown): string {
    return `$${this.#params.push(value)}`;
  }
}

interface Input {
  type: "text" | "int";
  values: readonly unknown[];
}

type ListedColumn<Row> = readonly ["text" | "int", (row: Row) => string | number | null];
type SlicedColumn<Row> = readonly ["bytea" | "jsonb", (row: Row) => Uint8Array];
type Column<Row> = ListedColumn<Row> | SlicedColumn<Row>;

function isSliced<Row>(column: Column<Row>): column is SlicedColumn<Row> {
  return column[0] === "bytea" || column[0] === "jsonb";
}

function addInput(inputs: Input[], type: Input["type"], values: readonly unknown[]): string {
  inputs.push({ type, values });
  return `r.c${inputs.length - 1}`;
}
