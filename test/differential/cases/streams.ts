import type { Probe } from "../probe.ts";
import { runOf, type Cases } from "./case.ts";

const INPUT = { input: { input: "x" } };
const HUMAN = { input: { messages: [{ type: "human", content: "Hi", id: "hi" }] } };

/** One run on a new thread, streamed in these modes. */
const stream =
  (graph: string, modes: string | string[], body: Record<string, unknown> = INPUT) =>
  async (probe: Probe): Promise<void> => {
    const thread = await probe.thread();
    await probe.send("stream", `POST /threads/${thread}/runs/stream`, {
      body: { assistant_id: graph, stream_mode: modes, ...body },
    });
  };

const MODES = ["values", "updates", "custom", "debug", "tasks", "checkpoints", "events", "tools"];

/** The event sequences of every stream mode. */
export const streamCases: Cases = {
  ...Object.fromEntries(MODES.map((mode) => [`${mode} of steps`, stream("steps", mode)])),
  ...Object.fromEntries(
    ["values", "updates", "messages", "messages-tuple", "events", "debug"].map((mode) => [
      `${mode} of chat`,
      stream("chat", mode, HUMAN),
    ]),
  ),
  ...Object.fromEntries(
    ["values", "updates", "custom", "debug", "tasks", "checkpoints"].flatMap((mode) => [
      [`${mode} of custom`, stream("custom", mode)],
      [
        `${mode} of custom with subgraphs`,
        stream("custom", mode, { ...INPUT, stream_subgraphs: true }),
      ],
    ]),
  ),
  ...Object.fromEntries(
    ["messages", "messages-tuple", "updates", "events"].flatMap((mode) => [
      [`${mode} of delegate`, stream("delegate", mode, HUMAN)],
      [
        `${mode} of delegate with subgraphs`,
        stream("delegate", mode, { ...HUMAN, stream_subgraphs: true }),
      ],
    ]),
  ),
  ...Object.fromEntries(
    ["values", "updates", "debug", "tasks"].flatMap((mode) => [
      [`${mode} of an interrupt`, stream("approval", mode)],
      [`${mode} of a failure`, stream("failing", mode)],
      [`${mode} of parallel tasks`, stream("routed", mode)],
    ]),
  ),
  ...Object.fromEntries(MODES.map((mode) => [`${mode} of a tool`, stream("tools", mode, HUMAN)])),
  ...Object.fromEntries(
    ["custom", "checkpoints", "events", "messages", "messages-tuple", "tools"].flatMap((mode) => [
      [`${mode} of an interrupt`, stream("approval", mode)],
      [`${mode} of a failure`, stream("failing", mode)],
    ]),
  ),
  ...Object.fromEntries(
    ["debug", "tasks", "checkpoints"].map((mode) => [
      `${mode} of a subgraph's interrupt with subgraphs`,
      stream("nested", mode, { ...INPUT, stream_subgraphs: true }),
    ]),
  ),
  ...Object.fromEntries(
    ["values", "updates", "debug", "tasks", "checkpoints"].flatMap((mode) => [
      [
        `${mode} of a breakpoint before a node`,
        stream("steps", mode, { ...INPUT, interrupt_before: ["two"] }),
      ],
      [
        `${mode} of a breakpoint after a node`,
        stream("steps", mode, { ...INPUT, interrupt_after: ["one"] }),
      ],
    ]),
  ),
  "every mode at once": stream("steps", ["values", "updates", "custom", "debug", "tasks"]),
  "values of a subgraph's interrupt": stream("nested", "values", {
    ...INPUT,
    stream_subgraphs: true,
  }),
  "updates of a subgraph's interrupt": stream("nested", "updates", {
    ...INPUT,
    stream_subgraphs: true,
  }),
  "several modes": stream("steps", ["values", "updates", "custom"]),
  "messages and others": stream("chat", ["messages", "values", "updates"], HUMAN),
  "both kinds of messages": stream("chat", ["messages", "messages-tuple"], HUMAN),
  "events and others": async (probe) => {
    const thread = await probe.thread();
    const { events = [] } = await probe.fetch(`POST /threads/${thread}/runs/stream`, {
      body: { assistant_id: "chat", ...HUMAN, stream_mode: ["events", "updates"] },
    });
    // A node's start and the update of the one before it are told by two sources, in no order.
    for (const mode of ["events", "updates"]) {
      const own = events.filter(({ event }) => event === mode);
      probe.record(mode, { events: own.map(({ event, data }) => ({ event, data })) });
    }
  },
  "no mode": stream("steps", []),
  "a breakpoint before a node": stream("steps", "values", { ...INPUT, interrupt_before: ["two"] }),
  "a breakpoint after every node": stream("steps", "updates", { ...INPUT, interrupt_after: "*" }),
  "a graph that never ends": stream("endless", "updates", {
    ...INPUT,
    config: { recursion_limit: 3 },
  }),
  "messages kept by an earlier run": async (probe) => {
    const thread = await probe.thread();
    for (const [index, mode] of ["messages", "messages"].entries()) {
      await probe.send(`stream ${index}`, `POST /threads/${thread}/runs/stream`, {
        body: {
          assistant_id: "chat",
          stream_mode: mode,
          input: { messages: [{ role: "user", content: "Hi", id: `hi-${index}` }] },
        },
      });
    }
  },
  "a resume": async (probe) => {
    const thread = await probe.thread();
    const path = `POST /threads/${thread}/runs/stream` as const;
    await probe.fetch(path, { body: { assistant_id: "approval", ...INPUT } });
    await probe.send("resume", path, {
      body: {
        assistant_id: "approval",
        command: { resume: { go: true } },
        stream_mode: ["values", "updates", "debug"],
      },
    });
  },
  "a subgraph's resume": async (probe) => {
    const thread = await probe.thread();
    const path = `POST /threads/${thread}/runs/stream` as const;
    await probe.fetch(path, { body: { assistant_id: "nested", ...INPUT } });
    await probe.send("resume", path, {
      body: {
        assistant_id: "nested",
        command: { resume: "yes" },
        stream_mode: ["updates"],
        stream_subgraphs: true,
      },
    });
  },
  "a resumable stream, read again": async (probe) => {
    const thread = await probe.thread();
    const answer = await probe.send("stream", `POST /threads/${thread}/runs/stream`, {
      body: { assistant_id: "steps", ...INPUT, stream_resumable: true },
    });
    const run = runOf(answer);
    await probe.send("from the start", `GET /threads/${thread}/runs/${run}/stream`, {
      headers: { "Last-Event-ID": "-1" },
    });
    await probe.send("from the second", `GET /threads/${thread}/runs/${run}/stream`, {
      headers: { "Last-Event-ID": "1" },
    });
  },
  "a run joined while it runs": async (probe) => {
    const thread = await probe.thread();
    const run = (
      await probe.client.runs.create(thread, "slow", {
        input: { input: "3000" },
        streamMode: "updates",
      })
    ).run_id;
    await probe.send("stream", `GET /threads/${thread}/runs/${run}/stream`, {});
  },
  "the official client": async (probe) => {
    const thread = await probe.thread();
    await probe.call("parts", async (client) => {
      const parts: unknown[] = [];
      const created: unknown[] = [];
      const stream = client.runs.stream(thread, "steps", {
        ...INPUT,
        streamMode: ["values", "updates"],
        onRunCreated: (run) => created.push(run),
      });
      for await (const part of stream) parts.push(part);
      return { created, events: parts };
    });
  },
};
