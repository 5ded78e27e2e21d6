import type { Client, ClientBase } from "pg";
import { destroySocket } from "./sockets.ts";

/*
 * A statement without an answer is at work, or has nobody who could answer: where the other side of a connection
 * vanished without a word, TCP gives up after a quarter of an hour.
 *
 *   asked ──answered──▶ forgotten
 *     └──silent for a while──▶ suspected ──its session is at work──▶ looked at again
 *                                 └──no connection can be made, or its session is gone or waits for us──▶ broken
 */

export interface SilenceWatchOptions {
  /** A new, unconnected client by the same way, whose every step has a time limit. */
  createProbe: () => Client;
  /** How long a statement may be silent before it is looked after; 0 looks after none. */
  silentMs: number;
}

interface Asked {
  /** Milliseconds since 1970: the last answer, or the first of the statements that wait. */
  since: number;
  waiting: number;
}

/** Sessions at work that are this connection's; `direct` tells that it has the session it believes to have. */
const SESSIONS = `
  SELECT pg_backend_pid() AS own, ARRAY(
    SELECT pid FROM pg_stat_activity WHERE pid = ANY($1::int[]) AND state NOT LIKE 'idle%') AS at_work`;

/** Breaks connections on which nobody answers any more, so that whoever waits is told. */
export class SilenceWatch {
  readonly #options: SilenceWatchOptions;
  readonly #asked = new Map<ClientBase, Asked>();
  readonly #timer: NodeJS.Timeout | undefined;
  #looking = false;
  /** When connections were last broken: others of that age may be as dead. Milliseconds since 1970. */
  brokenAt = 0;

  constructor(options: SilenceWatchOptions) {
    this.#options = options;
    if (options.silentMs === 0) return;
    this.#timer = setInterval(() => void this.#look(), options.silentMs / 2);
    this.#timer.unref();
  }

  /** Gives `answer`, which was asked of `client`; it rejects when the connection is found to be dead. */
  async follow<Answer>(client: ClientBase, answer: Promise<Answer>): Promise<Answer> {
    if (this.#timer === undefined) return answer;
    const asked = this.#asked.get(client) ?? { since: Date.now(), waiting: 0 };
    asked.waiting += 1;
    this.#asked.set(client, asked);
    try {
      return await answer;
    } finally {
      asked.waiting -= 1;
      asked.since = Date.now();
      if (asked.waiting === 0) this.#asked.delete(client);
    }
  }

  close(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    const before = Date.now() - this.#options.silentMs;
    const suspects = [...this.#asked].filter(([, { since }]) => since < before);
    if (suspects.length === 0 || this.#looking) return;
    this.#looking = true;
    try {
      const atWork = await this.#findAtWork(suspects.map(([client]) => sessionOf(client)));
      for (const [client, { since }] of suspects) {
        // What was answered meanwhile lives.
        const silent = this.#asked.get(client)?.since === since;
        if (!silent || atWork === "all" || atWork.has(sessionOf(client))) continue;
        this.brokenAt = Date.now();
        destroySocket(client);
      }
    } finally {
      this.#looking = false;
    }
  }

  /** The sessions that are at work; `all` where that cannot be told, none where there is no database. */
  async #findAtWork(sessions: readonly number[]): Promise<ReadonlySet<number> | "all"> {
    const probe = this.#options.createProbe();
    probe.on("error", () => {});
    try {
      await probe.connect();
      const { rows } = await probe.query<{ own: number; at_work: number[] }>(SESSIONS, [sessions]);
      const [row] = rows;
      // A pooler in between gives sessions numbers of its own.
      if (row?.own !== sessionOf(probe)) return "all";
      return new Set(row.at_work);
    } catch (error) {
      // Whoever refuses a connection is there; who does not answer at all, or is only starting, has no sessions.
      const code: unknown = (error as { code?: unknown }).code;
      return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) && !code.startsWith("57P")
        ? "all"
        : new Set();
    } finally {
      void probe.end().catch(() => {});
      destroySocket(probe);
    }
  }
}

/** The number of a connection's session at the server, by what it was told when it was made. */
function sessionOf(client: ClientBase): number {
  return (client as unknown as { processID?: number | null }).processID ?? 0;
}
