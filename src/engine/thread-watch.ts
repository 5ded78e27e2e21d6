import type { Logger } from "../observability/log.ts";

/** Somebody's interest in a thread. Whoever has it closes it. */
export interface WatchedThread {
  /** Resolves at the next sign that a run has started on the thread. */
  next(): Promise<void>;
  close(): void;
}

export interface ThreadWatchOptions {
  /** The last place in the stream of each of these threads; what is not there has none. */
  positions: (threadIds: readonly string[]) => Promise<Map<string, number>>;
  /** How often all watched threads are looked at, in one statement, for runs that no hint told of. */
  pollMs: number;
  log: Logger;
}

interface Entry {
  interests: number;
  /** Resolves at the next sign. */
  sign: Promise<void>;
  wake: () => void;
  /** The last position at the last look. */
  seen: number | undefined;
}

/** Wakes those who wait for runs on a thread: at once where a hint comes, and otherwise by looking. */
export class ThreadWatch {
  readonly #options: ThreadWatchOptions;
  readonly #entries = new Map<string, Entry>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: ThreadWatchOptions) {
    this.#options = options;
  }

  watch(threadId: string): WatchedThread {
    const entry = this.#entries.get(threadId) ?? renew({ interests: 0, seen: undefined } as Entry);
    entry.interests += 1;
    this.#entries.set(threadId, entry);
    this.#schedule();
    let open = true;
    return {
      next: () => entry.sign,
      close: () => {
        if (!open) return;
        open = false;
        entry.interests -= 1;
        if (entry.interests === 0) this.#entries.delete(threadId);
      },
    };
  }

  /** Tells that a run has started on a thread. */
  hint(threadId: string): void {
    const entry = this.#entries.get(threadId);
    if (!entry) return;
    const { wake } = entry;
    renew(entry);
    wake();
  }

  /** Wakes everybody: hints may have been missed. */
  poke(): void {
    for (const threadId of this.#entries.keys()) this.hint(threadId);
  }

  /** Looks no more. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #schedule(): void {
    if (this.#timer || this.#closed || this.#entries.size === 0) return;
    this.#timer = setTimeout(() => {
      void this.#look()
        .catch((error: unknown) => {
          this.#options.log.debug({ err: error }, "threads could not be looked at");
        })
        .finally(() => {
          this.#timer = undefined;
          this.#schedule();
        });
    }, this.#options.pollMs);
  }

  async #look(): Promise<void> {
    const asked = [...this.#entries];
    const positions = await this.#options.positions(asked.map(([threadId]) => threadId));
    for (const [threadId, entry] of asked) {
      const position = positions.get(threadId) ?? 0;
      if (entry.seen === position) continue;
      entry.seen = position;
      this.hint(threadId);
    }
  }
}

function renew(entry: Entry): Entry {
  entry.sign = new Promise((resolve) => {
    entry.wake = resolve;
  });
  return entry;
}

/** Resolves with the promise, or when `signal` aborts. */
export function unlessAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      signal.removeEventListener("abort", done);
      resolve();
    };
    signal.addEventListener("abort", done, { once: true });
    void promise.then(done);
  });
}
