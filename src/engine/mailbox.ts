import { AsyncResource } from "node:async_hooks";
import type { CancelAction } from "../protocol/runs.ts";
import type { Logger } from "../observability/log.ts";
import type { Database, Subscription } from "../storage/database.ts";

/** The channel all processes on one database share. */
export const CHANNEL = "aegra";

/** What processes tell each other. A hint that saves waiting: whoever misses one finds out by looking. */
export type Message =
  /** A run waits in the queue. */
  | { kind: "run" }
  /** Whoever executes the run is to stop it. */
  | { kind: "cancel"; run_id: string; action: CancelAction }
  /** Somebody elsewhere waits for what the run does; `log`: and wants its events in the database. */
  | { kind: "follow"; run_id: string; log: boolean }
  /** There are events of these runs, or they have ended. */
  | { kind: "changed"; run_ids: readonly string[] }
  /** A run has taken its place in the thread's stream. */
  | { kind: "thread"; thread_id: string };

/** Sends and receives messages between the processes of one database. The opener closes it. */
export interface Mailbox {
  /** Sends, without waiting and without failing. */
  send(message: Message): void;
  /** Receives nothing more. */
  close(): Promise<void>;
}

/** PostgreSQL refuses payloads of 8,000 bytes and more; a run's id takes 39 with its quotes and comma. */
const MAX_RUN_IDS = 190;

/** The payloads that tell of changes in these runs. */
export function toChangedPayloads(runIds: readonly string[]): string[] {
  const payloads: string[] = [];
  for (let from = 0; from < runIds.length; from += MAX_RUN_IDS) {
    const message: Message = { kind: "changed", run_ids: runIds.slice(from, from + MAX_RUN_IDS) };
    payloads.push(JSON.stringify(message));
  }
  return payloads;
}

/** Opens the mailbox; `onMessage` also gets what this process sent, `onMissed` is called after a gap. */
export async function openMailbox(
  database: Database,
  options: { log: Logger; onMessage: (message: Message) => void; onMissed: () => void },
): Promise<Mailbox> {
  const receive = (payload: string): void => {
    try {
      options.onMessage(JSON.parse(payload) as Message);
    } catch (error) {
      options.log.warn({ err: error }, "a message between processes could not be read");
    }
  };
  const subscription: Subscription = await database.listen(CHANNEL, receive, options.onMissed);
  return { send: createSender(database, options.log), close: () => subscription.close() };
}

/** Sends what comes while a statement is on its way with the next one; what is said twice is sent once. */
function createSender(database: Database, log: Logger): (message: Message) => void {
  const changed = new Set<string>();
  const others = new Set<string>();
  // The loop serves all runs, so it must not inherit the async context (trace, transaction) of one.
  const context = new AsyncResource("aegra.mailbox");
  let sending = false;
  const send = async (): Promise<void> => {
    sending = true;
    while (changed.size + others.size > 0) {
      const payloads = [...others, ...toChangedPayloads([...changed])];
      changed.clear();
      others.clear();
      await database
        .query("SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload", [
          CHANNEL,
          payloads,
        ])
        .catch((error: unknown) => log.debug({ err: error }, "a hint was not sent"));
    }
    sending = false;
  };
  return (message) => {
    if (message.kind === "changed") message.run_ids.forEach((runId) => changed.add(runId));
    else others.add(JSON.stringify(message));
    if (!sending) void context.runInAsyncScope(send);
  };
}
