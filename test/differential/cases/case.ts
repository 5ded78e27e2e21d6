import type { Answer, Probe } from "../probe.ts";

/** By name, what is asked of each of the two servers. */
export type Cases = Record<string, (probe: Probe) => Promise<void>>;

/** The run a stream is of, as its first event says. */
export function runOf(answer: Answer): string {
  const [first] = answer.events ?? [];
  if (!first) throw new Error("The stream has no events");
  return (first.data as { run_id: string }).run_id;
}
