/** What one run gave. */
export interface Sample {
  /** Until the first event of a stream, and until its first token. */
  firstEventMs?: number;
  firstTokenMs?: number;
  events: number;
}

/** What is asked of a target for a while. */
export interface Workload {
  /** The kind of run: waited for or streamed, with a thread of its own or without. */
  kind: "wait" | "wait on a thread" | "stream";
  graph: "five" | "tokens" | "patient";
  /** Runs under way at any time. */
  concurrency: number;
  durationMs: number;
  /** At least so many runs, however long they take. */
  minimumRuns: number;
}

/** Latencies are in milliseconds, one per run. */
export interface Measurement {
  runs: number;
  events: number;
  elapsedMs: number;
  totals: number[];
  firstEvents: number[];
  firstTokens: number[];
}

/** Does one thing after the other, `concurrency` at a time, until the time is over and the last has ended. */
export async function measure(
  workload: Workload,
  once: (workload: Workload) => Promise<Sample>,
): Promise<Measurement> {
  const result: Measurement = {
    runs: 0,
    events: 0,
    elapsedMs: 0,
    totals: [],
    firstEvents: [],
    firstTokens: [],
  };
  const begin = performance.now();
  let started = 0;
  const work = async (): Promise<void> => {
    while (performance.now() - begin < workload.durationMs || started < workload.minimumRuns) {
      started += 1;
      const from = performance.now();
      const sample = await once(workload);
      result.totals.push(performance.now() - from);
      result.runs += 1;
      result.events += sample.events;
      if (sample.firstEventMs !== undefined) result.firstEvents.push(sample.firstEventMs);
      if (sample.firstTokenMs !== undefined) result.firstTokens.push(sample.firstTokenMs);
    }
  };
  await Promise.all(Array.from({ length: workload.concurrency }, work));
  result.elapsedMs = performance.now() - begin;
  return result;
}
