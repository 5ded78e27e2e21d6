import type { Score } from "../observer.ts";
import { retryAfterMs } from "../delivery/transport.ts";
import type { LangfuseSettings } from "./config.ts";
import { traceIdOf } from "./identity.ts";
import { basicAuth } from "./project.ts";

const MAX_WAITING = 10_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;

/** Delivers scores in the background, one at a time; the id makes a second post harmless. */
export interface ScoreSender {
  add(score: Score): void;
  readonly pending: number;
  flush(timeoutMs: number): Promise<boolean>;
  close(): void;
}

/** A sender of scores to `POST /api/public/scores`. `onLoss` hears of a score given up, and why. */
export function createScoreSender(
  settings: LangfuseSettings,
  onLoss: (reason: string) => void,
): ScoreSender {
  return new BackgroundScores(settings, onLoss);
}

class BackgroundScores implements ScoreSender {
  readonly #settings: LangfuseSettings;
  readonly #onLoss: (reason: string) => void;
  readonly #waiting: Score[] = [];
  readonly #stop = new AbortController();
  #running = false;
  #failures = 0;

  constructor(settings: LangfuseSettings, onLoss: (reason: string) => void) {
    this.#settings = settings;
    this.#onLoss = onLoss;
  }

  get pending(): number {
    return this.#waiting.length;
  }

  add(score: Score): void {
    if (this.#stop.signal.aborted) {
      this.#onLoss("the observer is closed");
      return;
    }
    if (this.#waiting.length >= MAX_WAITING) {
      this.#waiting.shift();
      this.#onLoss(`more than ${MAX_WAITING} scores are waiting`);
    }
    this.#waiting.push(score);
    if (!this.#running) void this.#run();
  }

  async flush(timeoutMs: number): Promise<boolean> {
    const until = Date.now() + timeoutMs;
    while (this.#waiting.length > 0 && Date.now() < until) await pause(20, this.#stop.signal);
    return this.#waiting.length === 0;
  }

  close(): void {
    this.#stop.abort();
    if (this.#waiting.length > 0)
      this.#onLoss(`${this.#waiting.length} scores were not sent before the end`);
    this.#waiting.length = 0;
  }

  async #run(): Promise<void> {
    this.#running = true;
    for (let score = this.#waiting[0]; score !== undefined; score = this.#waiting[0]) {
      const waitMs = await this.#post(score);
      if (this.#stop.signal.aborted) break;
      if (waitMs === undefined) this.#remove(score);
      else await pause(waitMs, this.#stop.signal);
    }
    this.#running = false;
  }

  #remove(score: Score): void {
    const at = this.#waiting.indexOf(score);
    if (at >= 0) this.#waiting.splice(at, 1);
    this.#failures = 0;
  }

  /** Milliseconds until the next try, or `undefined` when this score is settled. */
  async #post(score: Score): Promise<number | undefined> {
    const settings = this.#settings;
    try {
      const response = await fetch(`${settings.host}/api/public/scores`, {
        method: "POST",
        headers: {
          ...settings.headers,
          authorization: basicAuth(settings),
          "content-type": "application/json",
        },
        body: JSON.stringify(toBody(score, settings)),
        redirect: "manual",
        signal: AbortSignal.any([this.#stop.signal, AbortSignal.timeout(settings.timeoutMs)]),
      });
      const answer = (await response.text()).slice(0, 200);
      if (response.ok) return undefined;
      if (response.status === 400 || response.status === 422 || response.status === 413) {
        this.#onLoss(`HTTP ${response.status}: ${answer}`);
        return undefined;
      }
      return this.#nextWait(retryAfterMs(response.headers.get("retry-after")));
    } catch {
      return this.#nextWait(undefined);
    }
  }

  #nextWait(askedMs: number | undefined): number {
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(this.#failures, 10));
    this.#failures += 1;
    return Math.max(askedMs ?? 0, wait / 2 + Math.random() * (wait / 2));
  }
}

function toBody(score: Score, settings: LangfuseSettings): Record<string, unknown> {
  return {
    id: score.id,
    traceId: traceIdOf(score.run_id),
    name: score.name,
    value: score.value,
    dataType: score.data_type,
    environment: settings.environment,
    ...(score.comment === undefined ? {} : { comment: score.comment }),
  };
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done);
    timer.unref();
  });
}
