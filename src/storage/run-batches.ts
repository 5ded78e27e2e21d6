import type { Metadata } from "../protocol/common.ts";
import type { ThreadTtl } from "../protocol/thread-ttl.ts";
import type { Database } from "./database.ts";
import { createRunRepository } from "./runs.ts";
import type { Created, NewRun } from "./run-creation.ts";
import { insertThread } from "./threads.ts";

/** Several runs at once. */
export interface RunBatchRepository {
  /**
   * Writes all of the runs or none, in this order, with the threads of those that keep one. `key_taken`: one of
   * their idempotency keys is another run's.
   */
  create(
    batch: readonly { run: NewRun; threadMetadata: Metadata }[],
  ): Promise<Extract<Created, { kind: "created" }>[] | "key_taken">;
}

/** Ends the transaction: PostgreSQL takes no further statement after one that failed. */
class NotCreated extends Error {
  readonly created: Created;

  constructor(created: Created) {
    super(`A run of a batch was not created: ${created.kind}`);
    this.created = created;
  }
}

/** `defaultTtl` is for the threads that the runs create, where a run has none of its own for it. */
export function createRunBatchRepository(
  database: Database,
  { defaultTtl }: { defaultTtl?: ThreadTtl | undefined } = {},
): RunBatchRepository {
  return {
    async create(batch) {
      try {
        return await database.transaction(async (tx) => {
          const runs = createRunRepository(tx);
          const all: Extract<Created, { kind: "created" }>[] = [];
          for (const { run, threadMetadata } of batch) {
            if (!run.temporary) {
              const threadId = run.thread_id;
              await insertThread(tx, { threadId, metadata: threadMetadata, ttl: defaultTtl });
            }
            const created = await runs.create(run);
            if (created.kind !== "created") throw new NotCreated(created);
            all.push(created);
          }
          return all;
        });
      } catch (error) {
        if (error instanceof NotCreated && error.created.kind === "key_taken") return "key_taken";
        throw error;
      }
    },
  };
}
