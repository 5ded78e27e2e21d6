import type { Client } from "@langchain/langgraph-sdk";

/** One small run that was asked for, to see whether the cluster answers. */
export interface Probe {
  at: number;
  ms: number;
  ok: boolean;
}

const EVERY_MS = 200;
const LIMIT_MS = 30_000;
/** An answer that took longer counts as none. */
export const PROMPT_MS = 1_000;

/** Asks for a run without a thread again and again, whether the one before has ended or not. */
export async function watchAnswers(client: Client, until: () => boolean): Promise<Probe[]> {
  const under: Promise<Probe>[] = [];
  while (!until()) {
    under.push(probe(client));
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
  return Promise.all(under);
}

async function probe(client: Client): Promise<Probe> {
  const at = Date.now();
  let ok = false;
  try {
    const signal = AbortSignal.timeout(LIMIT_MS);
    const answer = await client.runs.wait(null, "probe", { input: {}, signal });
    ok = "trail" in answer;
  } catch {
    // Not answered, which is what is noted.
  }
  return { at, ms: Date.now() - at, ok };
}

/** From `at` until new runs were answered promptly again, in ms; 0 if they always were. */
export function recoveryMs(probes: readonly Probe[], at: number, next: number): number {
  const during = probes.filter((one) => one.at + one.ms >= at && one.at < next);
  const bad = during.filter((one) => !one.ok || one.ms > PROMPT_MS);
  // The next one after the last that was asked in vain.
  const last = bad.at(-1);
  if (!last) return 0;
  const after = probes.find((one) => one.at > last.at && one.ok);
  return (after?.at ?? last.at + last.ms) - at;
}
