import type { CancelAction } from "../protocol/runs.ts";
import type { Logger } from "../observability/log.ts";
import type { Database, Subscription } from "../storage/database.ts";

/** The channel all processes on one database share. */
const CHANNEL = "aegra";

/** What processes tell each other. A hint that saves waiting: whoever misses one finds out by looking. */
export type Message =
  | { kind: "run" }
  | { kind: "cancel"; run_id: string; action: CancelAction }
  /** A run has taken its place in the thread's stream. */
  | { kind: "thread"; thread_id: string };

/** Sends and receives messages between the processes of one database. The opener closes it. */
export interface Mailbox {
  /** Sends, without waiting and without failing. */
  send(message: Message): void;
  close(): Promise<void>;
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
  return {
    send(message) {
      database
        .query("SELECT pg_notify($1, $2)", [CHANNEL, JSON.stringify(message)])
        .catch((error: unknown) => options.log.debug({ err: error }, "a hint was not sent"));
    },
    close: () => subscription.close(),
  };
}
