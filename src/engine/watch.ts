import type { Logger } from "../observability/log.ts";
import { createSignal } from "./run-stream.ts";

/** Somebody's interest in something that other processes change too. Whoever has it closes it. */
export interface Watched {
  /** Resolves at the next sign that something happened. */
  changed(): Promise<void>;
  close(): void;
}

export interface WatchOptions {
  /** How each of these stands, as a text to compare; what is not there has none. */
  marks: (ids: readonly string[]) => Promise<ReadonlyMap<string, string>>;
  /** Is told of a change that came without a hint. */
  onUnhinted?: (id: string) => void;
  pollMs: number;
  log: Logger;
}

interface Entry {
  interests: number;
  signal: ReturnType<typeof createSignal>;
  /** How it stood at the last look. */
  seen: string | undefined;
  /** Whether a hint came since. */
  hinted: boolean;
}

/**
 * Wakes those who wait for what other processes do: at once where a hint comes, and otherwise by looking at all
 * of it together, in one statement.
 */
export class Watch {
  readonly #options: WatchOptions;
  readonly #entries = new Map<string, Entry>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: WatchOptions) {
    this.#options = options;
  }

  watch(id: string): Watched {
    const entry = this.#entries.get(id) ?? {
      interests: 0,
      signal: createSignal(),
      seen: undefined,
      hinted: false,
    };
    entry.interests += 1;
    this.#entries.set(id, entry);
    this.#schedule();
    let open = true;
    return {
      changed: () => entry.signal.promise,
      close: () => {
        if (!open) return;
        open = false;
        entry.interests -= 1;
        if (entry.interests === 0) this.#entries.delete(id);
      },
    };
  }

  /** Tells that something happened to these. */
  hint(ids: readonly string[]): void {
    for (const id of ids) {
      const entry = this.#entries.get(id);
      if (!entry) continue;
      entry.hinted = true;
      wake(entry);
    }
  }

  /** Wakes everybody to look: hints may have been missed. */
  poke(): void {
    for (const entry of this.#entries.values()) wake(entry);
  }

  /** Looks no more, and wakes everybody. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.poke();
  }

  #schedule(): void {
    if (this.#timer || this.#closed || this.#entries.size === 0) return;
    this.#timer = setTimeout(() => {
      void this.#look()
        .catch((error: unknown) => {
          this.#options.log.debug({ err: error }, "what other processes do could not be looked at");
        })
        .finally(() => {
          this.#timer = undefined;
          this.#schedule();
        });
    }, this.#options.pollMs);
  }

  async #look(): Promise<void> {
    const asked = [...this.#entries];
    for (const [, entry] of asked) entry.hinted = false;
    const marks = await this.#options.marks(asked.map(([id]) => id));
    for (const [id, entry] of asked) {
      const seen = marks.get(id) ?? "gone";
      if (seen === entry.seen) continue;
      const first = entry.seen === undefined;
      entry.seen = seen;
      // What a hint told of is no news; a change without one is a hint that was not sent, or was lost.
      if (!entry.hinted && !first) this.#options.onUnhinted?.(id);
      wake(entry);
    }
  }
}

function wake(entry: Entry): void {
  const { signal } = entry;
  entry.signal = createSignal();
  signal.resolve();
}
