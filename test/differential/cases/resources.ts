import type { Probe } from "../probe.ts";
import type { Cases } from "./case.ts";

const INPUT = { input: { input: "x" } };

/** Threads, their states, assistants, and the store. */
export const resourceCases: Cases = {
  "a thread": async (probe) => {
    const created = await probe.send("create", "POST /threads", {
      body: { metadata: { mine: 1 } },
    });
    const thread = (created.body as { thread_id: string }).thread_id;
    await probe.send("get", `GET /threads/${thread}`);
    await probe.send("empty state", `GET /threads/${thread}/state`);
    await probe.send("empty history", `GET /threads/${thread}/history`);
    await probe.send("no runs", `GET /threads/${thread}/runs`);
    await probe.send("patch", `PATCH /threads/${thread}`, { body: { metadata: { more: 2 } } });
    await probe.send("delete", `DELETE /threads/${thread}`);
    await probe.send("get deleted", `GET /threads/${thread}`);
    await probe.send("delete again", `DELETE /threads/${thread}`);
  },
  "a thread of a chosen id": async (probe) => {
    const thread = probe.id("thread");
    await probe.send("create", "POST /threads", { body: { thread_id: thread } });
    await probe.send("again", "POST /threads", { body: { thread_id: thread } });
    await probe.send("do nothing", "POST /threads", {
      body: { thread_id: thread, if_exists: "do_nothing", metadata: { other: 1 } },
    });
  },
  "threads, searched": async (probe) => {
    const mark = probe.id("mark");
    const create = (n: number): Promise<unknown> =>
      probe.client.threads.create({ metadata: { mark, n } });
    for (const n of [1, 2, 3]) await create(n);
    const search = (label: string, body: object): Promise<unknown> =>
      probe.send(label, "POST /threads/search", { body: { metadata: { mark }, ...body } });
    await search("all", {});
    await search("a page", { limit: 2 });
    await search("the next page", { limit: 2, offset: 2 });
    await search("oldest first", { sort_by: "created_at", sort_order: "asc" });
    await search("by status", { status: "interrupted" });
    await search("two fields", { select: ["thread_id", "metadata"] });
    await search("none by their ids", { ids: [] });
    await search("by more metadata", { metadata: { mark, n: 2 } });
    await probe.send("count", "POST /threads/count", { body: { metadata: { mark } } });
  },
  "settings of a thread": async (probe) => {
    const { assistant_id: assistant } = await probe.client.assistants.create({
      graphId: "inspect",
      config: { configurable: { model: "small" } },
    });
    const thread = await probe.thread();
    const run = (label: string, configurable?: Record<string, unknown>): Promise<unknown> =>
      probe.send(label, `POST /threads/${thread}/runs/wait`, {
        body: {
          assistant_id: assistant,
          ...INPUT,
          ...(configurable && { config: { configurable } }),
        },
      });
    await run("first", { size: 1 });
    await run("second");
    await probe.client.assistants.update(assistant, {
      config: { configurable: { model: "tiny" } },
    });
    await run("after a change");
  },
  "a history": async (probe) => {
    const thread = await probe.thread();
    await probe.client.runs.wait(thread, "steps", INPUT);
    const history = await probe.send("history", `GET /threads/${thread}/history`);
    const states = history.body as { checkpoint: { checkpoint_id: string } }[];
    const place = states[1]!.checkpoint;
    await probe.send("posted", `POST /threads/${thread}/history`, { body: { limit: 2 } });
    await probe.send("limited", `GET /threads/${thread}/history?limit=1`);
    await probe.send("by metadata", `POST /threads/${thread}/history`, {
      body: { metadata: { step: 1 } },
    });
    await probe.send("before", `POST /threads/${thread}/history`, {
      body: { before: place.checkpoint_id },
    });
    await probe.send("at", `GET /threads/${thread}/state/${place.checkpoint_id}`);
    await probe.send("at, posted", `POST /threads/${thread}/state/checkpoint`, {
      body: { checkpoint: { checkpoint_id: place.checkpoint_id, checkpoint_ns: "" } },
    });
    await probe.send(
      "at a place that is not",
      `GET /threads/${thread}/state/${probe.id("nowhere")}`,
    );
    await probe.call("by the client", (client) =>
      client.threads.getHistory(thread, { limit: 2, checkpoint: { checkpoint_ns: "" } }),
    );
  },
  "a run from an older checkpoint": async (probe) => {
    const thread = await probe.thread();
    await probe.client.runs.wait(thread, "steps", INPUT);
    const [, second] = await nameCheckpoints(probe, thread);
    await probe.send("wait", `POST /threads/${thread}/runs/wait`, {
      body: { assistant_id: "steps", input: null, checkpoint_id: second! },
    });
    await nameCheckpoints(probe, thread);
    await probe.send("history", `GET /threads/${thread}/history`);
    await probe.send("and the next run", `POST /threads/${thread}/runs/wait`, {
      body: { assistant_id: "steps", ...INPUT },
    });
  },
  "a state, updated": async (probe) => {
    const thread = await probe.thread();
    await probe.client.runs.wait(thread, "approval", INPUT);
    await probe.send("update", `POST /threads/${thread}/state`, {
      body: { values: { trail: ["by hand"] } },
    });
    await probe.send("as a node", `POST /threads/${thread}/state`, {
      body: { values: { trail: ["as ask"] }, as_node: "ask" },
    });
    await probe.send("state", `GET /threads/${thread}/state`);
    await probe.send("thread", `GET /threads/${thread}`);
    await probe.send("as an unknown node", `POST /threads/${thread}/state`, {
      body: { values: {}, as_node: "nobody" },
    });
    await probe.send("go on", `POST /threads/${thread}/runs/wait`, {
      body: { assistant_id: "approval", input: null },
    });
  },
  "a state of messages": async (probe) => {
    const thread = await probe.thread();
    await probe.client.runs.wait(thread, "chat", {
      input: { messages: [{ type: "human", content: "Hi", id: "hi" }] },
    });
    await probe.send("state", `GET /threads/${thread}/state`);
    await probe.send("thread", `GET /threads/${thread}`);
    await probe.send("update", `POST /threads/${thread}/state`, {
      body: { values: { messages: [{ role: "assistant", content: "Bye", id: "bye" }] } },
    });
    await probe.send("state after", `GET /threads/${thread}/state`);
  },
  "a thread with a history": async (probe) => {
    const created = await probe.send("create", "POST /threads", {
      body: {
        metadata: { graph_id: "steps" },
        supersteps: [
          { updates: [{ values: { input: "made" }, as_node: "__start__" }] },
          { updates: [{ values: { trail: ["by hand"] }, as_node: "one" }] },
        ],
      },
    });
    const thread = (created.body as { thread_id: string }).thread_id;
    await nameCheckpoints(probe, thread);
    await probe.send("state", `GET /threads/${thread}/state`);
    await probe.send("history", `GET /threads/${thread}/history`);
    await probe.send("go on", `POST /threads/${thread}/runs/wait`, {
      body: { assistant_id: "steps", input: null },
    });
  },
  "a thread with a history that goes elsewhere": async (probe) => {
    const created = await probe.send("create", "POST /threads", {
      body: {
        metadata: { graph_id: "steps" },
        supersteps: [
          { updates: [{ values: { input: "made" }, as_node: "__start__" }] },
          {
            updates: [{ command: { update: { trail: ["command"] }, goto: "two" }, as_node: "one" }],
          },
        ],
      },
    });
    const thread = (created.body as { thread_id: string }).thread_id;
    await nameCheckpoints(probe, thread);
    await probe.send("state", `GET /threads/${thread}/state`);
  },
  "a copy": async (probe) => {
    const thread = await probe.thread();
    await probe.client.runs.wait(thread, "approval", INPUT);
    await nameCheckpoints(probe, thread);
    const copied = await probe.fetch(`POST /threads/${thread}/copy`);
    const { thread_id: copy, values } = copied.body as { thread_id: string; values: unknown };
    probe.record("copy", { status: copied.status, body: { values } });
    await probe.send("state", `GET /threads/${copy}/state`);
    await probe.send("history", `GET /threads/${copy}/history`);
    await probe.send("resume", `POST /threads/${copy}/runs/wait`, {
      body: { assistant_id: "approval", command: { resume: "yes" } },
    });
    await probe.send("original", `GET /threads/${thread}`);
  },
  "an older state, updated": async (probe) => {
    const thread = await probe.thread();
    await probe.client.runs.wait(thread, "steps", INPUT);
    const [, second] = await nameCheckpoints(probe, thread);
    await probe.send("by id", `POST /threads/${thread}/state`, {
      body: { values: { trail: ["forked"] }, as_node: "one", checkpoint_id: second! },
    });
    await probe.send("as a checkpoint", `POST /threads/${thread}/state`, {
      body: {
        values: { trail: ["again"] },
        as_node: "one",
        checkpoint: { checkpoint_id: second!, checkpoint_ns: "" },
      },
    });
    await probe.send("nothing", `POST /threads/${thread}/state`, { body: { values: null } });
    await nameCheckpoints(probe, thread);
    await probe.send("history", `GET /threads/${thread}/history`);
  },
  "a subgraph's state": async (probe) => {
    const thread = await probe.thread();
    await probe.client.runs.wait(thread, "nested", INPUT);
    const state = await probe.client.threads.getState(thread);
    const checkpoint = state.tasks[0]!.checkpoint!;
    await probe.send("at its namespace", `POST /threads/${thread}/state/checkpoint`, {
      body: { checkpoint: { checkpoint_ns: checkpoint.checkpoint_ns } },
    });
    await probe.send("update", `POST /threads/${thread}/state`, {
      body: {
        values: { trail: ["inside"] },
        as_node: "ask",
        checkpoint: { checkpoint_ns: checkpoint.checkpoint_ns },
      },
    });
    await probe.send("after", `GET /threads/${thread}/state?subgraphs=true`);
  },
  "threads, searched by their values": async (probe) => {
    const mark = probe.id("mark");
    const thread = await probe.thread();
    await probe.client.threads.update(thread, { metadata: { mark } });
    await probe.client.runs.wait(thread, "steps", { input: { input: mark } });
    for (const [label, values] of [
      ["found", { input: mark }],
      ["not found", { input: "other" }],
    ] as const) {
      await probe.send(label, "POST /threads/search", {
        body: { metadata: { mark }, values, ids: [thread], select: ["thread_id", "values"] },
      });
    }
  },
  "a state update on a new thread": async (probe) => {
    const thread = await probe.thread();
    await probe.send("update", `POST /threads/${thread}/state`, {
      body: { values: { input: "y" } },
    });
  },
  "assistants of graphs": async (probe) => {
    await probe.send("by graph id", "GET /assistants/steps");
    const search = { graph_id: "steps", metadata: { created_by: "system" } };
    await probe.send("search", "POST /assistants/search", { body: search });
    await probe.send("count", "POST /assistants/count", { body: search });
    await probe.call("by the client", (client) => client.assistants.get("steps"));
  },
  "an assistant": async (probe) => {
    const mark = probe.id("mark");
    const body = {
      graph_id: "inspect",
      name: "My assistant",
      description: "Looks",
      metadata: { mark },
      config: { tags: ["own"], configurable: { own: "setting" } },
    };
    const created = await probe.send("create", "POST /assistants", { body });
    const id = (created.body as { assistant_id: string }).assistant_id;
    await probe.send("get", `GET /assistants/${id}`);
    await probe.send("again", "POST /assistants", { body: { ...body, assistant_id: id } });
    await probe.send("do nothing", "POST /assistants", {
      body: { ...body, assistant_id: id, if_exists: "do_nothing" },
    });
    await probe.send("bare", "POST /assistants", {
      body: { graph_id: "steps", metadata: { mark } },
    });
    const search = (label: string, more: object): Promise<unknown> =>
      probe.send(label, "POST /assistants/search", { body: { metadata: { mark }, ...more } });
    await search("search", {});
    await search("by a part of the name", { name: "MY ASS" });
    await search("a page", { limit: 1 });
    await search("two fields", { select: ["assistant_id", "name"] });
    const thread = await probe.thread();
    await probe.send("run", `POST /threads/${thread}/runs/wait`, {
      body: { assistant_id: id, input: {}, config: { configurable: { more: 1 } } },
    });
  },
  "store items": async (probe) => {
    const root = probe.id("root");
    const put = (
      label: string,
      namespace: string[],
      key: string,
      value: object,
    ): Promise<unknown> =>
      probe.send(label, "PUT /store/items", { body: { namespace, key, value } });
    await put("put", [root, "a"], "one", { text: "first", n: 1 });
    await put("put another", [root, "b"], "two", { text: "second", n: 2 });
    await put("put again", [root, "a"], "one", { text: "changed", n: 1 });
    await probe.send("get", `GET /store/items?namespace=${root}.a&key=one`);
    await probe.send("get nothing", `GET /store/items?namespace=${root}.a&key=none`);
    await probe.send("search", "POST /store/items/search", { body: { namespace_prefix: [root] } });
    await probe.send("filter", "POST /store/items/search", {
      body: { namespace_prefix: [root], filter: { n: 2 } },
    });
    await probe.send("namespaces", "POST /store/namespaces", { body: { prefix: [root] } });
    await probe.send("shallow namespaces", "POST /store/namespaces", {
      body: { prefix: [root], max_depth: 1 },
    });
    await probe.send("delete", "DELETE /store/items", {
      body: { namespace: [root, "a"], key: "one" },
    });
    await probe.send("delete again", "DELETE /store/items", {
      body: { namespace: [root, "a"], key: "one" },
    });
    await probe.call("by the client", (client) => client.store.getItem([root, "b"], "two"));
    await probe.call("searched by the client", (client) => client.store.searchItems([root]));
  },
  "the store of a graph": async (probe) => {
    const thread = await probe.thread();
    await probe.client.store.deleteItem(["graph", "memory"], "last");
    for (const input of ["first", "second"]) {
      await probe.send(input, `POST /threads/${thread}/runs/wait`, {
        body: { assistant_id: "memory", input: { input } },
      });
    }
    await probe.send("item", "GET /store/items?namespace=graph.memory&key=last");
  },
};

/** Names the checkpoints of a thread by their place, oldest first; gives their ids, newest first. */
async function nameCheckpoints(probe: Probe, thread: string): Promise<string[]> {
  const states = await probe.client.threads.getHistory(thread);
  const ids = states.map((state) => state.checkpoint.checkpoint_id!);
  ids.toReversed().forEach((id, place) => probe.id(`checkpoint at ${place}`, id));
  return ids;
}
