import {
  createNoopObserver,
  type ObservedRun,
  type Observer,
  type RunObservation,
  type TracePlace,
} from "./observer.ts";

/**
 * One observer over several. What one of them does wrong (throws, rejects, never answers) is told to `onError`
 * and stays its own: the others and the run do not notice.
 */
export function composeObservers(
  observers: readonly Observer[],
  onError: (error: unknown) => void,
): Observer {
  const [only] = observers;
  if (only === undefined) return createNoopObserver();
  return new ComposedObserver(observers, onError);
}

class ComposedObserver implements Observer {
  readonly #observers: readonly Observer[];
  readonly #onError: (error: unknown) => void;

  constructor(observers: readonly Observer[], onError: (error: unknown) => void) {
    this.#observers = observers;
    this.#onError = onError;
  }

  place(run: Parameters<NonNullable<Observer["place"]>>[0]): TracePlace | undefined {
    return this.#first((observer) => observer.place?.(run));
  }

  startRun(run: ObservedRun): RunObservation {
    const observations = this.#each((observer) => observer.startRun(run));
    const onError = this.#onError;
    return {
      traceId: observations.find(({ traceId }) => traceId !== undefined)?.traceId,
      callbacks: observations.flatMap(({ callbacks }) => callbacks),
      metadata: Object.fromEntries(
        observations.flatMap(({ metadata }) => Object.entries(metadata)),
      ),
      within: (work) =>
        observations.reduceRight<typeof work>(
          (inner, observation) => () => within(observation, inner, onError),
          work,
        )(),
      bound(config) {
        for (const observation of observations) guard(() => observation.bound?.(config), onError);
      },
      firstEvent() {
        for (const observation of observations) guard(() => observation.firstEvent?.(), onError);
      },
      end(outcome) {
        for (const observation of observations) guard(() => observation.end(outcome), onError);
      },
      settled(stored) {
        for (const observation of observations) guard(() => observation.settled?.(stored), onError);
      },
      async recorded() {
        const results = await Promise.allSettled(
          observations.map(async (observation) => observation.recorded?.()),
        );
        for (const result of results) if (result.status === "rejected") onError(result.reason);
      },
    };
  }

  /** Rejects only if every observer does. */
  async score(score: Parameters<Observer["score"]>[0]): Promise<void> {
    const results = await this.#all((observer) => observer.score(score));
    const failure = results.find((result) => result.status === "rejected");
    if (failure !== undefined && results.every(({ status }) => status === "rejected"))
      throw failure.reason;
  }

  traceUrl(runId: string, place?: TracePlace): string | undefined {
    return this.#first((observer) => observer.traceUrl(runId, place));
  }

  status(): ReturnType<Observer["status"]> {
    return this.#each((observer) => observer.status()).flat();
  }

  async ready(): Promise<void> {
    await this.#all((observer) => observer.ready());
  }

  async flush(timeoutMs: number): Promise<boolean> {
    const results = await this.#all((observer) => observer.flush(timeoutMs), timeoutMs);
    return results.every((result) => result.status === "fulfilled" && result.value);
  }

  async shutdown(timeoutMs: number): Promise<void> {
    await this.#all((observer) => observer.shutdown(timeoutMs), timeoutMs);
  }

  /** What each observer gives; those that throw give nothing. */
  #each<T>(ask: (observer: Observer) => T): T[] {
    const answers: T[] = [];
    for (const observer of this.#observers) {
      guard(() => void answers.push(ask(observer)), this.#onError);
    }
    return answers;
  }

  #first<T>(ask: (observer: Observer) => T | undefined): T | undefined {
    for (const observer of this.#observers) {
      let answer: T | undefined;
      guard(() => (answer = ask(observer)), this.#onError);
      if (answer !== undefined) return answer;
    }
    return undefined;
  }

  async #all<T>(
    ask: (observer: Observer) => Promise<T>,
    timeoutMs?: number,
  ): Promise<PromiseSettledResult<T>[]> {
    const results = await Promise.allSettled(
      this.#observers.map(async (observer) => withDeadline(ask(observer), timeoutMs)),
    );
    for (const result of results) if (result.status === "rejected") this.#onError(result.reason);
    return results;
  }
}

/** Runs `inner` inside an observation, whose own mistakes neither keep it from running nor change what it gives. */
function within<T>(
  observation: RunObservation,
  inner: () => T,
  onError: (error: unknown) => void,
): T {
  const ending: { done?: { value: T } | { error: unknown } } = {};
  const work = (): T => {
    try {
      const value = inner();
      ending.done = { value };
      return value;
    } catch (error) {
      ending.done = { error };
      throw error;
    }
  };
  try {
    observation.within(work);
  } catch (error) {
    const { done } = ending;
    if (done === undefined || !("error" in done) || done.error !== error) onError(error);
  }
  const { done } = ending;
  if (done === undefined) return inner();
  if ("error" in done) throw done.error;
  return done.value;
}

function guard(work: () => void, onError: (error: unknown) => void): void {
  try {
    work();
  } catch (error) {
    onError(error);
  }
}

/** How much longer than it was given an observer may take before the others stop waiting for it. */
const PATIENCE_MS = 1_000;

async function withDeadline<T>(answer: Promise<T>, timeoutMs: number | undefined): Promise<T> {
  if (timeoutMs === undefined) return answer;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(new Error(`no answer within ${timeoutMs} ms`)),
      timeoutMs + PATIENCE_MS,
    );
  });
  return Promise.race([answer, late]).finally(() => clearTimeout(timer));
}
