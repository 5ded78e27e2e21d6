import { setTimeout as delay } from "node:timers/promises";
import type { Client } from "pg";
import type { Subscription } from "./database.ts";
import { destroySocket } from "./sockets.ts";

/*
 * One connection for every LISTEN of a process.
 *
 *   idle ──first subscribe──> connecting ──connected, LISTEN sent──> listening
 *                                 ^                                     │
 *                                 └───── waiting (backoff) <── lost ────┘
 *   any state ──close──> closed
 *
 * A connection is lost when the socket ends or when a heartbeat is not answered in time: a peer that
 * vanished without a FIN would otherwise look like a quiet channel for ever.
 */

/** Told about what goes wrong in the background, where no caller is waiting for an answer. */
export type StorageLog = (
  level: "info" | "warn",
  message: string,
  fields?: Record<string, unknown>,
) => void;

interface Subscriber {
  onNotify: (payload: string) => void;
  onReconnect: (() => void) | undefined;
}

export interface ListenerOptions {
  createClient: () => Client;
  /** Between two heartbeats, and the time one may take; 0 sends none. */
  heartbeatMs: number;
  log: StorageLog;
}

const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 5_000;

/** Shares one connection among all subscriptions, and replaces it when it is lost. */
export class Listener {
  readonly #options: ListenerOptions;
  readonly #channels = new Map<string, Set<Subscriber>>();
  readonly #closed = new AbortController();
  #client: Client | undefined;
  #connecting: Promise<Client> | undefined;
  #unconnected: Client | undefined;
  #reconnecting: Promise<void> | undefined;
  #heartbeat: NodeJS.Timeout | undefined;

  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  /** Resolves once the channel is heard. Rejects when the first connection cannot be made. */
  async subscribe(
    channel: string,
    onNotify: (payload: string) => void,
    onReconnect?: () => void,
  ): Promise<Subscription> {
    const subscriber: Subscriber = { onNotify, onReconnect };
    const subscribers = this.#channels.get(channel) ?? new Set();
    this.#channels.set(channel, subscribers.add(subscriber));
    try {
      const client = await this.#connected();
      // Again for every subscriber: LISTEN is idempotent, and its answer proves that the channel is heard.
      await client.query(`LISTEN ${quoteIdentifier(channel)}`);
    } catch (error) {
      this.#remove(channel, subscriber);
      throw error;
    }
    return {
      close: async () => {
        if (!this.#remove(channel, subscriber) || this.#channels.has(channel)) return;
        // A lost connection has forgotten the channel by itself.
        await this.#client?.query(`UNLISTEN ${quoteIdentifier(channel)}`).catch(() => {});
        if (this.#channels.has(channel)) {
          await this.#client?.query(`LISTEN ${quoteIdentifier(channel)}`).catch(() => {});
        }
      },
    };
  }

  async close(): Promise<void> {
    this.#closed.abort(new Error("The database is closed."));
    clearInterval(this.#heartbeat);
    this.#channels.clear();
    if (this.#unconnected) destroySocket(this.#unconnected);
    await this.#reconnecting;
    await this.#connecting?.catch(() => {});
    const client = this.#client;
    this.#client = undefined;
    await client?.end().catch(() => {});
  }

  #remove(channel: string, subscriber: Subscriber): boolean {
    const subscribers = this.#channels.get(channel);
    const removed = subscribers?.delete(subscriber) ?? false;
    if (subscribers?.size === 0) this.#channels.delete(channel);
    return removed;
  }

  async #connected(): Promise<Client> {
    if (this.#reconnecting) await this.#reconnecting;
    if (this.#client) return this.#client;
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  async #connect(): Promise<Client> {
    this.#closed.signal.throwIfAborted();
    const client = this.#options.createClient();
    client.on("error", () => this.#lost(client));
    client.on("end", () => this.#lost(client));
    client.on("notification", ({ channel, payload = "" }) => {
      for (const subscriber of this.#channels.get(channel) ?? []) subscriber.onNotify(payload);
    });
    this.#unconnected = client;
    try {
      await client.connect();
      for (const channel of this.#channels.keys()) {
        await client.query(`LISTEN ${quoteIdentifier(channel)}`);
      }
      this.#closed.signal.throwIfAborted();
    } catch (error) {
      await client.end().catch(() => {});
      throw error;
    } finally {
      this.#unconnected = undefined;
    }
    this.#client = client;
    this.#startHeartbeat(client);
    return client;
  }

  #startHeartbeat(client: Client): void {
    const { heartbeatMs } = this.#options;
    clearInterval(this.#heartbeat);
    if (heartbeatMs === 0) return;
    let waiting = false;
    this.#heartbeat = setInterval(() => {
      if (waiting) {
        this.#lost(client);
        return;
      }
      waiting = true;
      client
        .query("SELECT 1")
        .then(() => (waiting = false))
        .catch(() => this.#lost(client));
    }, heartbeatMs);
    this.#heartbeat.unref();
  }

  #lost(client: Client): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    clearInterval(this.#heartbeat);
    destroySocket(client);
    if (this.#closed.signal.aborted) return;
    this.#options.log("warn", "The LISTEN connection to the database was lost; reconnecting.");
    this.#reconnecting = this.#reconnect().finally(() => {
      this.#reconnecting = undefined;
    });
  }

  async #reconnect(): Promise<void> {
    const { signal } = this.#closed;
    for (
      let waitMs = FIRST_RETRY_MS;
      !signal.aborted;
      waitMs = Math.min(waitMs * 2, MAX_RETRY_MS)
    ) {
      // Half of the wait is random, so that many processes do not return to a restarted server at once.
      const jitteredMs = waitMs / 2 + (Math.random() * waitMs) / 2;
      await delay(jitteredMs, undefined, { signal, ref: false }).catch(() => {});
      if (signal.aborted) return;
      try {
        await this.#connect();
        break;
      } catch {
        // Tried again, with a longer wait; the loss itself has been logged.
      }
    }
    if (signal.aborted) return;
    this.#options.log("info", "The LISTEN connection to the database is back.");
    for (const subscribers of this.#channels.values()) {
      for (const subscriber of subscribers) subscriber.onReconnect?.();
    }
  }
}

function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
