import { toCanonicalJson } from "../engine/canonical-json.ts";
import type { RunEvent, StreamMode } from "../protocol/runs.ts";

type Batches = AsyncGenerator<RunEvent[], void, void>;

/** After which silence a log has told what it has for now. */
const SILENCE_MS = 250;
/** Told whatever was asked for: they are about the run itself. */
const ABOUT_THE_RUN = new Set(["metadata", "error", "feedback"]);

/** Only the events of these modes and of graphs at these namespaces; `undefined` is all of them. */
export async function* filterEvents(
  batches: Batches,
  wanted: { modes?: readonly StreamMode[] | undefined; namespaces?: readonly string[] | undefined },
): Batches {
  const isOfMode = wanted.modes?.length ? byMode(wanted.modes) : undefined;
  const isAt = wanted.namespaces?.length ? byNamespace(wanted.namespaces) : undefined;
  if (!isOfMode && !isAt) return yield* batches;
  for await (const batch of batches) {
    const passing = batch.filter((event) => {
      const [name = ""] = event.event.split("|", 1);
      if (ABOUT_THE_RUN.has(name)) return true;
      // Both are asked: the namespaces of messages are learned from events that are not passed on.
      const at = isAt?.(event, name) ?? true;
      return (isOfMode?.(name) ?? true) && at;
    });
    if (passing.length > 0) yield passing;
  }
}

/**
 * Only the events after the first that shows this state, for a reader who shows it already; all of them, if none
 * of those that were told so far does.
 */
export async function* eventsAfterState(batches: Batches, state: unknown): Batches {
  const shown = toCanonicalJson(state);
  const isShown = ({ event, data }: RunEvent): boolean =>
    event === "values" && toCanonicalJson(JSON.parse(data)) === shown;
  const held: RunEvent[] = [];
  for (;;) {
    const coming = batches.next();
    const next = await Promise.race([coming, silence()]);
    if (!next || next.done) {
      if (held.length > 0) yield held;
      const late = await coming;
      if (!late.done) yield late.value;
      return yield* batches;
    }
    const found = next.value.findIndex(isShown);
    held.push(...next.value.slice(0, found < 0 ? undefined : found));
    if (found < 0) continue;
    const rest = next.value.slice(found + 1);
    yield [...held.filter(({ event }) => ABOUT_THE_RUN.has(event)), ...rest];
    return yield* batches;
  }
}

function silence(): Promise<undefined> {
  return new Promise((resolve) => setTimeout(resolve, SILENCE_MS, undefined));
}

function byMode(modes: readonly StreamMode[]): (name: string) => boolean {
  const names = new Set<string>(
    // What is called "messages" on the wire is the mode "messages-tuple".
    modes
      .filter((mode) => mode !== "messages")
      .map((mode) => (mode === "messages-tuple" ? "messages" : mode)),
  );
  return (name) => names.has(name) || (modes.includes("messages") && name.startsWith("messages/"));
}

/**
 * Whether an event is of a graph at one of these namespaces, and not of a graph inside it. Most events have their
 * namespace in their name. Those made from LangChain's have it in their data: that of the task, which is one
 * step below the graph's.
 */
function byNamespace(namespaces: readonly string[]): (event: RunEvent, name: string) => boolean {
  const wanted = new Set(namespaces);
  const messages = new Map<string, string>();
  return ({ event, data }, name) => {
    if (name === "events") {
      const { metadata } = JSON.parse(data) as { metadata?: object };
      return wanted.has(graphOf(metadata));
    }
    if (name === "messages/metadata") {
      const [entry] = Object.entries(JSON.parse(data) as Record<string, { metadata?: object }>);
      if (entry) messages.set(entry[0], graphOf(entry[1].metadata));
      return entry !== undefined && wanted.has(messages.get(entry[0])!);
    }
    if (name.startsWith("messages/")) {
      const [message] = JSON.parse(data) as { id?: string }[];
      return wanted.has(messages.get(message?.id ?? "") ?? "");
    }
    return wanted.has(event.slice(name.length + 1));
  };
}

/** The namespace of the graph whose task LangChain's metadata is about; "" for the root. */
function graphOf(metadata: object | undefined): string {
  const { langgraph_checkpoint_ns: task } = (metadata ?? {}) as {
    langgraph_checkpoint_ns?: string;
  };
  return task === undefined ? "" : task.split("|").slice(0, -1).join("|");
}
