import { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import type { ObservedRun, Observer, RunOutcome, Score } from "../../src/observability/observer.ts";

/** What was observed of one run. */
export interface RecordedRun {
  run: ObservedRun;
  /** Names of LangChain's events, in order: `chain start agent`, `chain end`, ... */
  events: string[];
  /** Calls of `within`. */
  within: number;
  outcome: RunOutcome | undefined;
}

/** An observer that keeps everything in memory, for tests of the engine. */
export interface RecordingObserver extends Observer {
  readonly runs: readonly RecordedRun[];
  readonly scores: readonly Score[];
  readonly shutdowns: number;
  /** The recordings of a run, one per attempt. */
  of(runId: string): RecordedRun[];
}

export function createRecordingObserver(): RecordingObserver {
  const runs: RecordedRun[] = [];
  const scores: Score[] = [];
  let shutdowns = 0;
  return {
    runs,
    scores,
    get shutdowns() {
      return shutdowns;
    },
    of: (runId) => runs.filter((recorded) => recorded.run.run_id === runId),
    startRun(run) {
      const recorded: RecordedRun = { run, events: [], within: 0, outcome: undefined };
      runs.push(recorded);
      return {
        traceId: run.run_id.replaceAll("-", ""),
        callbacks: [new EventRecorder(recorded.events)],
        metadata: {},
        within(work) {
          recorded.within += 1;
          return work();
        },
        end(outcome) {
          recorded.outcome ??= outcome;
        },
      };
    },
    score: async (score) => {
      const at = scores.findIndex((known) => known.id === score.id);
      if (at >= 0) scores[at] = score;
      else scores.push(score);
    },
    traceUrl: (runId) => `http://traces.test/${runId}`,
    status: () => [
      {
        name: "recorder",
        state: "on",
        message: "Runs are recorded.",
        host: undefined,
        spans: { made: runs.length, sent: runs.length, pending: 0, dropped: 0 },
        last_error: undefined,
      },
    ],
    ready: async () => {},
    flush: async () => true,
    shutdown: async () => {
      shutdowns += 1;
    },
  };
}

class EventRecorder extends BaseCallbackHandler {
  name = "EventRecorder";
  override awaitHandlers = true;
  readonly #events: string[];

  constructor(events: string[]) {
    super();
    this.#events = events;
  }

  override copy(): this {
    return this;
  }

  override handleChainStart(...args: unknown[]): void {
    this.#events.push(`chain start ${nameOf(args[7])}`.trim());
  }

  override handleChainEnd(): void {
    this.#events.push("chain end");
  }

  override handleChainError(): void {
    this.#events.push("chain error");
  }

  override handleToolStart(...args: unknown[]): void {
    this.#events.push(`tool start ${nameOf(args[6])}`.trim());
  }

  override handleToolEnd(): void {
    this.#events.push("tool end");
  }

  override handleChatModelStart(): void {
    this.#events.push("model start");
  }

  override handleLLMEnd(): void {
    this.#events.push("model end");
  }
}

function nameOf(runName: unknown): string {
  return typeof runName === "string" ? runName : "";
}
