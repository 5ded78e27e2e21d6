import type { Probe } from "../probe.ts";
import type { Cases } from "./case.ts";

interface WireEvent {
  method: string;
  params: { namespace: string[]; node?: string; data: Record<string, unknown> };
}

const CHANNELS = [
  "values",
  "updates",
  "messages",
  "tools",
  "lifecycle",
  "input",
  "checkpoints",
  "tasks",
  "custom",
];

async function command(probe: Probe, threadId: string, method: string, params: object) {
  const answer = await probe.fetch(`POST /threads/${threadId}/commands`, {
    body: { id: 1, method, params },
  });
  return answer.body as { type: string; error?: string; result?: Record<string, unknown> };
}

/** A command that is recorded, but for the place in the stream, which each server counts in its own way. */
async function tell(
  probe: Probe,
  threadId: string,
  said: { label: string; method: string; params: object },
) {
  const {
    meta: _meta,
    message: _message,
    ...answer
  } = (await command(probe, threadId, said.method, said.params)) as Record<string, unknown>;
  probe.record(said.label, answer);
}

/** Follows a thread from its first event to the nth end of a run. */
async function follow(probe: Probe, threadId: string, ends: number): Promise<WireEvent[]> {
  const controller = new AbortController();
  const events: WireEvent[] = [];
  let ended = 0;
  try {
    await probe.fetch(`POST /threads/${threadId}/stream/events`, {
      body: { channels: CHANNELS },
      signal: controller.signal,
      onEvent({ data }) {
        const event = data as WireEvent;
        events.push(event);
        if (isEnd(event)) ended += 1;
        if (ended === ends) controller.abort();
      },
    });
  } catch (error) {
    if (!controller.signal.aborted) throw error;
  }
  return events;
}

function isEnd({ method, params }: WireEvent): boolean {
  const { event } = params.data;
  const isOver = event === "completed" || event === "failed" || event === "interrupted";
  return method === "lifecycle" && params.namespace.length === 0 && isOver;
}

/** What is compared of an event: how state is written down is compared elsewhere. */
function shown({ method, params }: WireEvent): object {
  const { namespace, node, data } = params;
  const event = { method, namespace, ...(node !== undefined && { node }) };
  if (method === "updates") return event;
  if (method === "values") return { ...event, values: toTexts(data) };
  if (method === "tasks") return { ...event, name: data["name"], done: "result" in data };
  if (method === "checkpoints") return { ...event, step: data["step"], source: data["source"] };
  if (method !== "messages") return { ...event, data };
  const { run_id: _run, metadata: _metadata, ...message } = data;
  return { ...event, message };
}

/** Messages as who says what. */
function toTexts(values: Record<string, unknown>): object {
  const { messages, ...rest } = values;
  if (!Array.isArray(messages)) return rest;
  const texts = (messages as { type: string; content: unknown }[]).map(({ type, content }) => [
    type,
    content,
  ]);
  return { ...rest, messages: texts };
}

async function run(
  probe: Probe,
  graph: string,
  input: unknown,
): Promise<{ threadId: string; events: WireEvent[] }> {
  const threadId = probe.id("thread");
  const params = { assistant_id: graph, input };
  await tell(probe, threadId, { label: "run.start", method: "run.start", params });
  const events = await follow(probe, threadId, 1);
  probe.record("events", events.map(shown));
  return { threadId, events };
}

export const protocolCases: Cases = {
  async "protocol: steps"(probe) {
    const { threadId } = await run(probe, "steps", { input: "x" });
    const params = { namespace: [] };
    const { result } = await command(probe, threadId, "state.get", params);
    probe.record("state", result?.["values"]);
    await tell(probe, threadId, { label: "tree", method: "agent.getTree", params: {} });
  },

  async "protocol: tokens"(probe) {
    await run(probe, "chat", { messages: [{ role: "user", content: "Hi", id: "hi" }] });
  },

  async "protocol: tokens of a subgraph"(probe) {
    await run(probe, "delegate", { messages: [] });
  },

  async "protocol: custom events"(probe) {
    await run(probe, "custom", { input: "x" });
  },

  async "protocol: a failure"(probe) {
    await run(probe, "failing", { input: "x" });
  },

  async "protocol: a question and its answer"(probe) {
    const { threadId, events } = await run(probe, "nested", { input: "x" });
    const question = events.find(({ method }) => method === "input.requested")!;
    const { interrupt_id } = question.params.data;
    const { namespace } = question.params;
    const params = { namespace, interrupt_id, response: "yes" };
    const answer = await command(probe, threadId, "input.respond", params);
    probe.record("answer", { type: answer.type });
    const all = await follow(probe, threadId, 2);
    // That the question was answered is said by one of the two servers, and tested elsewhere.
    const told = all.slice(events.length).filter(({ method }) => method !== "input.answered");
    probe.record("after", told.map(shown));
  },

  async "protocol: refusals"(probe) {
    const threadId = probe.id("thread");
    const refused = async (label: string, method: string, params: object) => {
      const { type, error } = await command(probe, threadId, method, params);
      probe.record(label, { type, error });
    };
    await refused("no assistant", "run.start", {});
    await refused("no run", "input.respond", { namespace: [], interrupt_id: "x", response: 1 });
    await refused("unknown command", "run.stop", {});
  },
};
