import { GroupCommitter } from "./checkpoint-committer.ts";
import { RunCheckpointSaver } from "./checkpoint-saver.ts";
import type { RunSaverOptions } from "./checkpoint-saver.ts";
import { assertHeld, type LeaseGuard } from "./checkpoint-statement.ts";
import { deleteAfter, deleteThread } from "./checkpoint-threads.ts";
import type { Database } from "./database.ts";

export type { RunCheckpointSaver, RunSaverOptions } from "./checkpoint-saver.ts";

/**
 * LangGraph's checkpoints, in the tables of its PostgresSaver: either can read what the other wrote. A
 * server opens one; `close` waits for what is being saved and leaves the database open.
 */
export interface Checkpoints {
  /** The saver for one run, or for one other piece of work on a thread such as a state update. */
  forRun(options?: RunSaverOptions): RunCheckpointSaver;
  /** Removes a thread's checkpoints, values and writes; a thread without any is fine. */
  deleteThread(threadId: string): Promise<void>;
  /**
   * Takes a thread back to one of its checkpoints, or to none: removes what is newer, in all namespaces.
   * Interrupts the checkpoint was waiting at wait again. Rejects with `conflict`, and removes nothing, if the
   * guard's attempt is not the running one any more.
   */
  deleteAfter(
    threadId: string,
    checkpointId: string | undefined,
    guard?: LeaseGuard,
  ): Promise<void>;
  close(): Promise<void>;
}

/** Opens the checkpoints of a migrated database. The caller closes them before the database. */
export function openCheckpoints(database: Database): Checkpoints {
  const committer = new GroupCommitter(database);
  return {
    forRun: (options = {}) => new RunCheckpointSaver(database, committer, options),
    deleteThread: async (threadId) => {
      await committer.settled(threadId);
      await deleteThread(database, threadId);
    },
    deleteAfter: async (threadId, checkpointId, guard) => {
      await committer.settled(threadId);
      await database.transaction(async (tx) => {
        if (guard) await assertHeld(tx, guard);
        if (checkpointId === undefined) await deleteThread(tx, threadId);
        else await deleteAfter(tx, threadId, checkpointId);
      });
    },
    close: () => committer.settled(),
  };
}
