import type { LogState } from "../storage/run-events.ts";
import { Watch, type WatchOptions } from "./watch.ts";

export interface RunWatchOptions extends Pick<WatchOptions, "pollMs" | "log"> {
  states: (runIds: readonly string[]) => Promise<LogState[]>;
  /** Asks whoever executes the run to tell of changes. */
  ask: (runId: string) => void;
}

/** Wakes those who wait for runs of other processes: at new events, and at the end. */
export function createRunWatch({ states, ask, ...options }: RunWatchOptions): Watch {
  return new Watch({
    ...options,
    onUnhinted: ask,
    async marks(runIds) {
      const rows = await states(runIds);
      return new Map(
        rows.map((state) => [state.run_id, `${state.status} ${state.attempt} ${state.last_id}`]),
      );
    },
  });
}
