import type { RunStatus } from "../protocol/runs.ts";

/*
 * A run:
 *
 *   pending --claim--> running --finish--> success | error | timeout | interrupted
 *      |                  |
 *      |                  '--recover, release--> pending   (the worker went silent, or hands the run back)
 *      '--cancel--> interrupted
 *
 * A run that stops at an interrupt of the graph is a success. `interrupted` is a run that a client stopped.
 * The statements in `storage/run-queue.ts` carry these rules in their WHERE clauses.
 */

/** Which status may follow which. */
export const TRANSITIONS: Readonly<Record<RunStatus, readonly RunStatus[]>> = {
  pending: ["running", "interrupted"],
  running: ["success", "error", "timeout", "interrupted", "pending"],
  success: [],
  error: [],
  timeout: [],
  interrupted: [],
};

/** Whether a run with this status will never change again. */
export function isTerminal(status: RunStatus): boolean {
  return TRANSITIONS[status].length === 0;
}

/** How often the worker of a run may be lost before the run is given up as one that kills its workers. */
export const MAX_LOSSES = 3;
