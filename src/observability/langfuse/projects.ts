import type { Logger } from "pino";
import {
  createNoopObserver,
  type Observer,
  type TraceableRun,
  type TracePlace,
} from "../observer.ts";

/** What a route function learns of a run. */
export type RoutedRun = Pick<
  TraceableRun,
  "user_id" | "graph_id" | "assistant_id" | "thread_id" | "metadata"
>;

/** Chooses the Langfuse project of a run by name; `undefined` is the default project. Not asynchronous. */
export type Route = (run: RoutedRun) => string | undefined;

export interface ProjectsOptions {
  /** The project of the environment's keys. */
  main: Observer;
  /** The further ones, by name. */
  projects: ReadonlyMap<string, Observer>;
  route: Route | undefined;
  log: Logger;
}

/**
 * One observer over several Langfuse projects. A run's project is chosen once, by `place`, and kept with the
 * run, so that its links and scores go where its trace is. A route that throws, or names what is not there,
 * means the default project, and is said once.
 */
export function createProjectsObserver(options: ProjectsOptions): Observer {
  const { main, projects, log } = options;
  const all = [main, ...projects.values()];
  const choose = createChoice(options);
  const observerAt = (place: TracePlace | undefined): Observer =>
    (place?.project === undefined ? undefined : projects.get(place.project)) ?? main;
  const isGone = (place: TracePlace | undefined): boolean =>
    place?.project !== undefined && !projects.has(place.project);
  const closed = createNoopObserver();

  const place = (run: TraceableRun): TracePlace | undefined => {
    if (run.place?.project !== undefined) return run.place;
    const project = choose(run);
    const chosen = project === undefined ? main : (projects.get(project) ?? main);
    const found = chosen.place?.(run);
    return found === undefined || project === undefined ? found : { ...found, project };
  };
  return {
    place,
    startRun(run) {
      const at = run.place ?? place(run);
      if (at === undefined) return closed.startRun(run);
      if (isGone(at)) {
        log.warn(
          { run_id: run.run_id },
          `The Langfuse project "${at.project}" of a run is not configured any more; it is traced in the default one.`,
        );
      }
      return observerAt(at).startRun({ ...run, place: at });
    },
    async score(score) {
      if (isGone(score.place)) {
        log.error(
          { run_id: score.run_id },
          `A score was given up: its run's Langfuse project "${score.place?.project}" is not configured any more.`,
        );
        return;
      }
      await observerAt(score.place).score(score);
    },
    traceUrl: (runId, at) => (isGone(at) ? undefined : observerAt(at).traceUrl(runId, at)),
    status: () => all.flatMap((observer) => observer.status()),
    async ready() {
      await Promise.all(all.map((observer) => observer.ready()));
    },
    async flush(timeoutMs) {
      const done = await Promise.all(all.map((observer) => observer.flush(timeoutMs)));
      return done.every(Boolean);
    },
    async shutdown(timeoutMs) {
      await Promise.all(all.map((observer) => observer.shutdown(timeoutMs)));
    },
  };
}

function createChoice({
  projects,
  route,
  log,
}: ProjectsOptions): (run: RoutedRun) => string | undefined {
  const said = new Set<string>();
  const warn = (what: string): void => {
    if (said.has(what)) return;
    said.add(what);
    log.warn(`langfuse.route ${what}; such runs are traced in the default project. Said once.`);
  };
  return (run) => {
    if (route === undefined) return undefined;
    try {
      const { user_id, graph_id, assistant_id, thread_id, metadata } = run;
      const name: unknown = route({ user_id, graph_id, assistant_id, thread_id, metadata });
      if (name === undefined || name === null) return undefined;
      if (typeof name === "string" && projects.has(name)) return name;
      if (name instanceof Promise) name.catch(() => {});
      warn(
        typeof name === "string"
          ? `chose "${name.slice(0, 100)}", which is not one of langfuse.projects`
          : `gave ${name instanceof Promise ? "a promise" : `a ${typeof name}`} instead of the name of a project`,
      );
    } catch (error) {
      warn(`failed (${error instanceof Error ? error.message : String(error)})`);
    }
    return undefined;
  };
}
