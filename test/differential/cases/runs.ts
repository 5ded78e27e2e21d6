import type { Probe } from "../probe.ts";
import type { Cases } from "./case.ts";

const INPUT = { input: { input: "x" } };

/** Runs on threads: background, wait, join, list, cancel, multitask strategies. */
export const runCases: Cases = {
  "a background run": async (probe) => {
    const thread = await probe.thread();
    const created = await probe.send("create", `POST /threads/${thread}/runs`, {
      body: { assistant_id: "steps", ...INPUT, metadata: { mine: 1 }, config: { tags: ["a"] } },
    });
    const run = (created.body as { run_id: string }).run_id;
    await probe.send("join", `GET /threads/${thread}/runs/${run}/join`);
    await probe.send("get", `GET /threads/${thread}/runs/${run}`);
    await probe.send("list", `GET /threads/${thread}/runs`);
    await probe.send("list by status", `GET /threads/${thread}/runs?status=success`);
    await probe.send("list by another status", `GET /threads/${thread}/runs?status=error`);
    await probe.send("thread", `GET /threads/${thread}`);
    await probe.send("delete", `DELETE /threads/${thread}/runs/${run}`);
    await probe.send("get deleted", `GET /threads/${thread}/runs/${run}`);
    await probe.send("thread after", `GET /threads/${thread}/state`);
  },
  wait: (probe) => wait(probe, "steps"),
  "wait for a failure": (probe) => wait(probe, "failing"),
  "wait for an interrupt": (probe) => wait(probe, "approval"),
  "wait for a subgraph's interrupt": (probe) => wait(probe, "nested"),
  "wait for parallel tasks": (probe) => wait(probe, "routed"),
  "wait for a factory's graph": (probe) =>
    wait(probe, "factory", { config: { configurable: { flavour: "mint" } } }),
  "wait with a command": (probe) =>
    wait(probe, "steps", { command: { goto: "two", update: { input: "y" } }, input: undefined }),
  "wait with sends": (probe) =>
    wait(probe, "routed", {
      command: { goto: [{ node: "leaf", input: { input: "sent" } }] },
      input: undefined,
    }),
  "wait for a graph that never ends": (probe) =>
    wait(probe, "endless", { config: { recursion_limit: 3 } }),
  "a breakpoint": async (probe) => {
    const thread = await probe.thread();
    const path = `POST /threads/${thread}/runs/wait` as const;
    await probe.send("stop", path, {
      body: { assistant_id: "steps", ...INPUT, interrupt_before: ["two"] },
    });
    await probe.send("state", `GET /threads/${thread}/state`);
    await probe.send("thread", `GET /threads/${thread}`);
    await probe.send("go on", path, { body: { assistant_id: "steps", input: null } });
    await probe.send("thread after", `GET /threads/${thread}`);
  },
  "wait without input": (probe) => wait(probe, "steps", { input: null }),
  "join a failed run": async (probe) => {
    const thread = await probe.thread();
    const { run_id: run } = await probe.client.runs.create(thread, "failing", INPUT);
    await probe.send("join", `GET /threads/${thread}/runs/${run}/join`);
    await probe.send("run", `GET /threads/${thread}/runs/${run}`);
    await probe.call("the client", (client) => client.runs.join(thread, run));
  },
  "join an interrupted run": async (probe) => {
    const thread = await probe.thread();
    const { run_id: run } = await probe.client.runs.create(thread, "approval", INPUT);
    await probe.send("join", `GET /threads/${thread}/runs/${run}/join`);
    await probe.send("run", `GET /threads/${thread}/runs/${run}`);
  },
  "what a graph finds in its config": async (probe) => {
    const thread = await probe.thread();
    await probe.send("wait", `POST /threads/${thread}/runs/wait`, {
      body: {
        assistant_id: "inspect",
        input: {},
        metadata: { mine: "m" },
        context: { some: "context" },
        config: {
          tags: ["t"],
          recursion_limit: 7,
          configurable: { own: "value", run_id: "forged", thread_id: "forged", graph_id: "forged" },
        },
      },
      headers: { "x-own-header": "h", "x-api-key": "secret", "x-tenant-id": "secret" },
    });
  },
  "resume after an interrupt": async (probe) => {
    const thread = await probe.thread();
    const path = `POST /threads/${thread}/runs/wait` as const;
    await probe.send("ask", path, { body: { assistant_id: "approval", ...INPUT } });
    await probe.send("state", `GET /threads/${thread}/state`);
    await probe.send("thread", `GET /threads/${thread}`);
    await probe.send("resume", path, {
      body: { assistant_id: "approval", command: { resume: "yes" } },
    });
    await probe.send("thread after", `GET /threads/${thread}`);
  },
  "resume a subgraph": async (probe) => {
    const thread = await probe.thread();
    const path = `POST /threads/${thread}/runs/wait` as const;
    await probe.send("ask", path, { body: { assistant_id: "nested", ...INPUT } });
    await probe.send("thread", `GET /threads/${thread}`);
    await probe.send("state", `GET /threads/${thread}/state?subgraphs=true`);
    await probe.send("state alone", `GET /threads/${thread}/state`);
    await probe.send("resume", path, { body: { assistant_id: "nested", command: { resume: 1 } } });
    await probe.send("state after", `GET /threads/${thread}/state?subgraphs=true`);
  },
  "go on after a failure": async (probe) => {
    const thread = await probe.thread();
    const path = `POST /threads/${thread}/runs/wait` as const;
    await probe.send("fail", path, { body: { assistant_id: "failing", ...INPUT } });
    await probe.send("state", `GET /threads/${thread}/state`);
    await probe.send("thread", `GET /threads/${thread}`);
    await probe.send("another graph", path, { body: { assistant_id: "steps", ...INPUT } });
    await probe.send("thread after", `GET /threads/${thread}`);
  },
  "a thread made by the run": async (probe) => {
    const thread = probe.id("thread");
    const path = `POST /threads/${thread}/runs/wait` as const;
    await probe.send("without leave", path, { body: { assistant_id: "steps", ...INPUT } });
    await probe.send("with leave", path, {
      body: { assistant_id: "steps", ...INPUT, if_not_exists: "create" },
    });
    await probe.send("thread", `GET /threads/${thread}`);
  },
  "a run on a busy thread": async (probe) => {
    const thread = await probe.thread();
    const { run_id: first } = await probe.client.runs.create(thread, "slow", {
      input: { input: "20000" },
    });
    await whenRunning(probe, thread, first);
    const path = `POST /threads/${thread}/runs` as const;
    await probe.send("reject", path, { body: { assistant_id: "steps", ...INPUT } });
    const second = await probe.send("enqueue", path, {
      body: { assistant_id: "steps", ...INPUT, multitask_strategy: "enqueue" },
    });
    await probe.send("busy", `GET /threads/${thread}`);
    await probe.fetch(`POST /threads/${thread}/runs/${first}/cancel?wait=1`);
    const { run_id: queued } = second.body as { run_id: string };
    await probe.send("join", `GET /threads/${thread}/runs/${queued}/join`);
    await probe.send("first", `GET /threads/${thread}/runs/${first}`);
    await probe.send("second", `GET /threads/${thread}/runs/${queued}`);
    await probe.send("thread", `GET /threads/${thread}`);
  },
  "a state update on a busy thread": async (probe) => {
    const thread = await probe.thread();
    const { run_id: run } = await probe.client.runs.create(thread, "slow", {
      input: { input: "20000" },
    });
    await whenRunning(probe, thread, run);
    await probe.send("update", `POST /threads/${thread}/state`, {
      body: { values: { input: "y" } },
    });
    await probe.fetch(`POST /threads/${thread}/runs/${run}/cancel?wait=1`);
  },
  cancel: async (probe) => {
    const thread = await probe.thread();
    const { run_id: run } = await probe.client.runs.create(thread, "slow", {
      input: { input: "20000" },
    });
    await whenRunning(probe, thread, run);
    const path = `POST /threads/${thread}/runs/${run}/cancel` as const;
    await probe.send("cancel", `${path}?wait=1`);
    await probe.send("run", `GET /threads/${thread}/runs/${run}`);
    await probe.send("state", `GET /threads/${thread}/state`);
    await probe.send("thread", `GET /threads/${thread}`);
    await probe.send("again", path);
  },
  "cancel a waiting run": async (probe) => {
    const thread = await probe.thread();
    const { run_id: first } = await probe.client.runs.create(thread, "slow", {
      input: { input: "20000" },
    });
    await whenRunning(probe, thread, first);
    const { run_id: queued } = await probe.client.runs.create(thread, "steps", {
      ...INPUT,
      multitaskStrategy: "enqueue",
    });
    await probe.send("cancel", `POST /threads/${thread}/runs/${queued}/cancel`);
    await probe.send("run", `GET /threads/${thread}/runs/${queued}`);
    await probe.fetch(`POST /threads/${thread}/runs/${first}/cancel?wait=1`);
  },
  "roll back": async (probe) => {
    const thread = await probe.thread();
    await probe.client.runs.wait(thread, "steps", INPUT);
    const { run_id: run } = await probe.client.runs.create(thread, "slow", {
      input: { input: "20000" },
    });
    await whenRunning(probe, thread, run);
    await probe.send("cancel", `POST /threads/${thread}/runs/${run}/cancel?wait=1&action=rollback`);
    await probe.send("run", `GET /threads/${thread}/runs/${run}`);
    await probe.send("state", `GET /threads/${thread}/state`);
  },
  "a run that stops the one before it": async (probe) => {
    const thread = await probe.thread();
    const { run_id: first } = await probe.client.runs.create(thread, "slow", {
      input: { input: "20000" },
    });
    await whenRunning(probe, thread, first);
    await probe.send("interrupt", `POST /threads/${thread}/runs/wait`, {
      body: { assistant_id: "steps", ...INPUT, multitask_strategy: "interrupt" },
    });
    await probe.send("first", `GET /threads/${thread}/runs/${first}`);
  },
};

async function wait(
  probe: Probe,
  graph: string,
  body: Record<string, unknown> = {},
): Promise<void> {
  const thread = await probe.thread();
  await probe.send("wait", `POST /threads/${thread}/runs/wait`, {
    body: { assistant_id: graph, ...INPUT, ...body },
  });
  await probe.send("state", `GET /threads/${thread}/state`);
  await probe.send("thread", `GET /threads/${thread}`);
}

/** Resolves when the run has left its first node. */
async function whenRunning(probe: Probe, thread: string, runId: string): Promise<void> {
  for (let tries = 0; tries < 200; tries += 1) {
    const { status } = await probe.client.runs.get(thread, runId);
    const state = await probe.client.threads.getState<{ trail?: string[] }>(thread).catch(() => {});
    if (status === "running" && state?.values.trail?.at(-1) === "before") return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`The run on thread ${thread} did not start`);
}
