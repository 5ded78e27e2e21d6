import type { Probe } from "../probe.ts";

/** By name, what is asked of each of the two servers. */
export type Cases = Record<string, (probe: Probe) => Promise<void>>;
