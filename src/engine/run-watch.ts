import type { Logger } from "../observability/log.ts";
import type { LogState } from "../storage/run-events.ts";
import { createSignal, unlessAborted } from "./run-stream.ts";

/** Somebody's interest in a run that another process executes, or none yet. Whoever has it closes it. */
export interface Watched {
  /** Resolves at the next sign that something happened to the run, or when `signal` aborts. */
  changed(signal?: AbortSignal): Promise<void>;
  close(): void;
}

export interface RunWatchOptions {
  states: (runIds: readonly string[]) => Promise<LogState[]>;
  /** Asks whoever executes the run to tell of changes. */
  ask: (runId: string) => void;
  pollMs: number;
  log: Logger;
}

interface Entry {
  interests: number;
  signal: ReturnType<typeof createSignal>;
  /** How the run stood at the last look. */
  seen: string | undefined;
  /** Whether a hint came since. */
  hinted: boolean;
}

/**
 * Wakes those who wait for runs of other processes: at once where a hint comes, and otherwise by looking at all
 * of these runs together, in one statement.
 */
export class RunWatch {
  readonly #options: RunWatchOptions;
  readonly #entries = new Map<string, Entry>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: RunWatchOptions) {
    this.#options = options;
  }

  watch(runId: string): Watched {
    const entry = this.#entries.get(runId) ?? {
      interests: 0,
      signal: createSignal(),
      seen: undefined,
      hinted: false,
    };
    entry.interests += 1;
    this.#entries.set(runId, entry);
    this.#schedule();
    let open = true;
    return {
      changed: (signal) => unlessAborted(entry.signal.promise, signal),
      close: () => {
        if (!open) return;
        open = false;
        entry.interests -= 1;
        if (entry.interests === 0) this.#entries.delete(runId);
      },
    };
  }

  /** Tells that something happened to these runs. */
  hint(runIds: readonly string[]): void {
    for (const runId of runIds) {
      const entry = this.#entries.get(runId);
      if (!entry) continue;
      entry.hinted = true;
      wake(entry);
    }
  }

  /** Looks at all runs now: hints may have been missed. */
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
          this.#options.log.debug({ err: error }, "runs of other processes could not be looked at");
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
    const states = await this.#options.states(asked.map(([runId]) => runId));
    const byId = new Map(states.map((state) => [state.run_id, state]));
    for (const [runId, entry] of asked) {
      const state = byId.get(runId);
      const seen = state ? `${state.status} ${state.attempt} ${state.last_id}` : "gone";
      if (seen === entry.seen) continue;
      const first = entry.seen === undefined;
      entry.seen = seen;
      // What a hint told of is no news; a change without one is a hint that was not sent, or was lost.
      if (!entry.hinted && !first) this.#options.ask(runId);
      wake(entry);
    }
  }
}

function wake(entry: Entry): void {
  const { signal } = entry;
  entry.signal = createSignal();
  signal.resolve();
}
