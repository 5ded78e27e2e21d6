import type { Cases } from "./case.ts";

const NOBODY = "00000000-0000-4000-8000-000000000000";
const RUN = { assistant_id: "steps", input: { input: "x" } };

/** Unknown ids, wrong types, wrong routes, and what is not an endpoint of runs. */
export const refusalCases: Cases = {
  "unknown ids": async (probe) => {
    probe.id("nobody", NOBODY);
    const thread = await probe.thread();
    await probe.send("thread", `GET /threads/${NOBODY}`);
    await probe.send("state", `GET /threads/${NOBODY}/state`);
    await probe.send("history", `GET /threads/${NOBODY}/history`);
    await probe.send("patch", `PATCH /threads/${NOBODY}`, { body: { metadata: {} } });
    await probe.send("runs", `GET /threads/${NOBODY}/runs`);
    await probe.send("run", `GET /threads/${thread}/runs/${NOBODY}`);
    await probe.send("join", `GET /threads/${thread}/runs/${NOBODY}/join`);
    await probe.send("cancel", `POST /threads/${thread}/runs/${NOBODY}/cancel`);
    await probe.send("delete run", `DELETE /threads/${thread}/runs/${NOBODY}`);
    await probe.send("assistant", `GET /assistants/${NOBODY}`);
    await probe.send("assistant by name", "GET /assistants/nobody");
    await probe.send("run on it", `POST /threads/${NOBODY}/runs/wait`, { body: RUN });
    await probe.send("run of it", `POST /threads/${thread}/runs/wait`, {
      body: { ...RUN, assistant_id: NOBODY },
    });
    await probe.send("run of a graph", `POST /threads/${thread}/runs/wait`, {
      body: { ...RUN, assistant_id: "nobody" },
    });
    await probe.send("assistant of a graph", "POST /assistants", { body: { graph_id: "nobody" } });
    await probe.call("by the client", (client) => client.threads.get(NOBODY));
  },
  "invalid bodies": async (probe) => {
    const thread = await probe.thread();
    const path = `POST /threads/${thread}/runs/wait` as const;
    await probe.send("no JSON", path, { text: "{ this is not" });
    await probe.send("no object", path, { body: [1] });
    await probe.send("no assistant", path, { body: { input: {} } });
    await probe.send("a wrong mode", path, { body: { ...RUN, stream_mode: "wrong" } });
    await probe.send("a wrong strategy", path, { body: { ...RUN, multitask_strategy: "wrong" } });
    await probe.send("an unknown field", path, { body: { ...RUN, colour: "blue" } });
    await probe.send("a wrong config", path, { body: { ...RUN, config: { tags: "one" } } });
    await probe.send("a wrong goto", path, { body: { ...RUN, command: { goto: 1 } } });
    await probe.send("a wrong limit", "POST /threads/search", { body: { limit: 0 } });
    await probe.send("a wrong status", "POST /threads/search", { body: { status: "wrong" } });
    await probe.send("wrong metadata", "POST /threads", { body: { metadata: "wrong" } });
    await probe.send("a wrong id", "POST /threads", { body: { thread_id: "wrong" } });
    await probe.send("no graph", "POST /assistants", { body: {} });
    await probe.call("by the client", (client) => client.threads.search({ limit: -1 }));
  },
  "invalid paths": async (probe) => {
    probe.id("nobody", NOBODY);
    await probe.send("thread", "GET /threads/wrong");
    await probe.send("run", `GET /threads/${NOBODY}/runs/wrong`);
    await probe.send("no route", "GET /nowhere");
    await probe.send("no method", "PUT /threads");
  },
  "invalid store requests": async (probe) => {
    const put = (label: string, body: object): Promise<unknown> =>
      probe.send(label, "PUT /store/items", { body });
    await put("no namespace", { namespace: [], key: "k", value: {} });
    await put("an empty label", { namespace: [""], key: "k", value: {} });
    await put("a label with a period", { namespace: ["a.b"], key: "k", value: {} });
    await put("no key", { namespace: ["a"], value: {} });
    await put("a value that is no object", { namespace: ["a"], key: "k", value: "text" });
    await probe.send("get without a key", "GET /store/items?namespace=a");
  },
  "commands and inputs at once": async (probe) => {
    const thread = await probe.thread();
    await probe.send("wait", `POST /threads/${thread}/runs/wait`, {
      body: { ...RUN, command: { update: { input: "from the command" } } },
    });
    await probe.send("resume without a question", `POST /threads/${thread}/runs/wait`, {
      body: { assistant_id: "steps", command: { resume: "yes" } },
    });
    await probe.send("go nowhere", `POST /threads/${thread}/runs/wait`, {
      body: { assistant_id: "steps", command: { goto: "nobody" } },
    });
  },
  meta: async (probe) => {
    await probe.send("ok", "GET /ok");
    await probe.send("info", "GET /info");
  },
  "a JSON body as text": async (probe) => {
    await probe.send("create", "POST /threads", {
      body: { metadata: { mine: 1 } },
      headers: { "Content-Type": "text/plain" },
    });
  },
  "another origin": async (probe) => {
    const origin = { Origin: "https://example.org" };
    await probe.send("get", "GET /ok", {
      headers: origin,
      alsoHeaders: ["access-control-allow-origin", "access-control-expose-headers"],
    });
    await probe.send("preflight", "OPTIONS /threads", {
      headers: { ...origin, "Access-Control-Request-Method": "POST" },
      alsoHeaders: ["access-control-allow-origin", "access-control-allow-methods"],
    });
  },
};
