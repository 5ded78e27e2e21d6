import { TRANSITIONS } from "../../src/engine/run-status.ts";
import { isActive, type ModelState } from "./run-model.ts";

/** What is wrong in a state, as sentences. */
export function brokenIn({ runs, threads }: ModelState): string[] {
  const problems = threads.flatMap((thread, index) => {
    const own = runs.filter((run) => run.thread === index);
    const active = own.filter(isActive).length;
    const running = own.filter((run) => run.status === "running").length;
    return [
      ...(running > 1 ? [`${running} runs of thread ${index} are running`] : []),
      ...(active === thread.active ? [] : [`thread ${index} counts ${thread.active} of ${active}`]),
      ...((thread.status === "busy") === active > 0
        ? []
        : [`thread ${index} is ${thread.status} with ${active} active runs`]),
      ...(thread.writing && running > 0
        ? [`thread ${index} is written to while a run is on it`]
        : []),
    ];
  });
  runs.forEach((run, index) => {
    if (run.results > 1) problems.push(`run ${index} has ${run.results} results`);
    if (run.results !== (isActive(run) ? 0 : 1))
      problems.push(`run ${index} ended without a result`);
    if (run.status === "running" && run.worker === null) problems.push(`nobody runs run ${index}`);
    if (run.steps.some((attempt, at) => attempt < (run.steps[at - 1] ?? 0)))
      problems.push(`run ${index}: attempts wrote in the order ${run.steps.join()}`);
  });
  return problems;
}

/** What is wrong with the way from one state to the next, as sentences. */
export function brokenBetween(before: ModelState, after: ModelState): string[] {
  return after.runs.flatMap((run, index) => {
    const was = before.runs[index];
    if (!was) return [];
    const problems: string[] = [];
    if (was.status !== run.status && !TRANSITIONS[was.status].includes(run.status))
      problems.push(`run ${index} went from ${was.status} to ${run.status}`);
    const begins = was.status === "pending" && run.status === "running";
    if (run.attempt !== was.attempt + (begins ? 1 : 0))
      problems.push(`run ${index} went from attempt ${was.attempt} to ${run.attempt}`);
    // Nothing a worker does reaches a run it does not hold any more.
    if (run.steps.length > was.steps.length && run.steps.at(-1) !== was.attempt)
      problems.push(`attempt ${run.steps.at(-1)} of run ${index} wrote in attempt ${was.attempt}`);
    return problems;
  });
}
