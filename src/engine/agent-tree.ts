import type { AgentStatus } from "../protocol/events.ts";
import type { RunEvent } from "../protocol/runs.ts";
import type { RunRecord } from "../storage/run-record.ts";
import { fromEventName } from "./protocol-events.ts";
import type { RunEngine } from "./runs.ts";
import { statusOf } from "./thread-events.ts";

/** How long to wait for more of a log whose end is not known, before taking what came for all there is. */
const QUIET_MS = 200;

/** A graph of a run with the graphs it called. */
export interface AgentTree {
  namespace: readonly string[];
  status: AgentStatus;
  graph_name: string;
  children?: AgentTree[];
}

interface Place {
  namespace: readonly string[];
  status: AgentStatus;
  graph_name: string;
}

/** The graphs of a run as its log tells of them up to now. */
export async function readTree(run: RunRecord, engine: RunEngine): Promise<AgentTree> {
  const left = new AbortController();
  const log = engine.log(run, -1, left.signal);
  const places = new Map<string, Place>();
  places.set("", { namespace: [], status: "running", graph_name: run.graph_id });
  for (;;) {
    const quiet = setTimeout(() => left.abort(), QUIET_MS);
    const { done, value } = await log.next();
    clearTimeout(quiet);
    if (!done) {
      for (const event of value) note(places, event);
      continue;
    }
    if (value.run) places.get("")!.status = statusOf(value.run);
    return toTree(places, "");
  }
}

function note(places: Map<string, Place>, event: RunEvent): void {
  const { channel, namespace } = fromEventName(event.event);
  if (channel !== "lifecycle") return;
  const { data } = JSON.parse(event.data) as {
    data: { event: AgentStatus; graph_name?: string };
  };
  places.set(namespace.join("|"), {
    namespace,
    status: data.event,
    graph_name: data.graph_name ?? namespace.at(-1)?.split(":", 1)[0] ?? "",
  });
}

function toTree(places: Map<string, Place>, key: string): AgentTree {
  const place = places.get(key)!;
  const depth = place.namespace.length + 1;
  const children = [...places]
    .filter(
      ([other, { namespace }]) =>
        namespace.length === depth && (key === "" || other.startsWith(`${key}|`)),
    )
    .map(([other]) => toTree(places, other));
  return { ...place, ...(children.length > 0 && { children }) };
}
