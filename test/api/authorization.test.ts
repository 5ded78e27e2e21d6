import { pino } from "pino";
import { beforeAll, expect, it } from "vitest";
import { as, configureAuth, OWNER_FILTER } from "../support/auth.ts";
import { describeDatabases } from "../support/databases.ts";
import { five, inspect, registryOf } from "../support/graphs.ts";
import { createClient, request, startServer, type TestServer } from "../support/server.ts";

describeDatabases("owner scoping", (databases) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ five, inspect }), {
      config: await configureAuth(OWNER_FILTER),
    });
  });
  const ada = () => createClient(server.url, as("ada"));
  const eve = () => createClient(server.url, as("eve"));

  it("uses what the handler writes into the metadata, whatever the client wrote there", async () => {
    const thread = await ada().threads.create({ metadata: { owner: "eve", title: "mine" } });
    expect(thread.metadata).toEqual({ owner: "ada", title: "mine" });
    const patched = await ada().threads.update(thread.thread_id, { metadata: { owner: "eve" } });
    expect(patched.metadata).toMatchObject({ owner: "ada", title: "mine" });
    const run = await ada().runs.create(thread.thread_id, "five", { metadata: { owner: "eve" } });
    expect(run.metadata).toMatchObject({ owner: "ada" });
    const copy = await ada().threads.copy(thread.thread_id);
    expect(copy).toMatchObject({ metadata: { owner: "ada" } });
  });

  it("shows each owner their own", async () => {
    const { thread_id } = await ada().threads.create();
    expect((await ada().threads.get(thread_id)).thread_id).toBe(thread_id);
    await expect(eve().threads.get(thread_id)).rejects.toMatchObject({ status: 404 });
    expect(await eve().threads.search()).toEqual([]);
    expect(await eve().threads.count()).toBe(0);
    const assistant = await ada().assistants.create({ graphId: "five" });
    expect(await ada().assistants.search()).toEqual([assistant]);
    expect(await eve().assistants.search()).toEqual([]);
    await expect(
      eve().runs.wait(null, assistant.assistant_id, { input: { input: "x" } }),
    ).rejects.toMatchObject({ status: 404 });
  });

  it("lets everybody run the server's own assistants, on new threads and without", async () => {
    const input = { input: "x" };
    const threadId = crypto.randomUUID();
    await ada().runs.wait(threadId, "five", { input, ifNotExists: "create" });
    expect(await ada().threads.get(threadId)).toMatchObject({ metadata: { owner: "ada" } });
    for (const ifNotExists of ["create", "reject"] as const) {
      await expect(eve().runs.wait(threadId, "five", { input, ifNotExists })).rejects.toMatchObject(
        {
          status: 404,
        },
      );
    }
    const run = await ada().runs.create(null, "five", { input });
    const streamed = (token: string) =>
      request(server.url, `/runs/${run.run_id}/stream`, { headers: as(token) });
    expect((await streamed("eve")).status).toBe(404);
    expect((await streamed("ada")).status).toBe(200);
  });

  it("scopes the store by the namespace that the handler gives it", async () => {
    await ada().store.putItem(["notes"], "k", { text: "mine" });
    await eve().store.putItem(["notes"], "k", { text: "other" });
    expect((await ada().store.getItem(["notes"], "k"))?.value).toEqual({ text: "mine" });
    const found = await ada().store.searchItems([]);
    expect(found.items.map((item) => item.namespace)).toEqual([["ada", "notes"]]);
    expect((await ada().store.listNamespaces()).namespaces).toEqual([["ada", "notes"]]);
    await ada().store.deleteItem(["notes"], "k");
    expect(await ada().store.getItem(["notes"], "k")).toBeNull();
    expect((await eve().store.getItem(["notes"], "k"))?.value).toEqual({ text: "other" });
  });
});

/** What a project may write beside owner scoping; the user is `role` or `role:name`. */
const RULES = `
const role = ({ user }) => user.identity.split(":")[0];
auth
  .on("threads", (asked) => {
    const name = asked.user.identity;
    if (role(asked) === "shared") return { members: { $contains: [name, "all"] } };
    if (role(asked) === "level") return { level: { $eq: 3 }, open: true };
    if (role(asked) === "owner") return { owner: name };
    if (role(asked) === "operator") return { level: { $gt: 3 } };
    if (role(asked) === "teapot") throw new HTTPException(418, { message: "no coffee" });
    if (role(asked) === "crash") return asked.nothing.at.all;
    return role(asked) === "nobody" ? false : null;
  })
  .on("threads:delete", () => false)
  .on("threads:create_run", ({ value, user }) => {
    if (user.identity === "bad") value.metadata = "text";
    if (user.identity === "thief") value.thread_id = "00000000-0000-4000-8000-000000000000";
    value.kwargs.input = { input: "of the handler" };
    value.kwargs.context = { by: user.identity };
    return user.identity === "guest" ? { owner: "guest" } : true;
  })
  .on("assistants:read", ({ user }) => user.identity === "guest" || { owner: user.identity })
  .on("assistants", ({ user }) => ({ owner: user.identity }))
  .on("store", ({ user }) => ({ owner: user.identity }))
  .on("store:list_namespaces", ({ user }) => ({ namespace: { $contains: user.identity } }));
`;

describeDatabases("rules", (databases) => {
  let server: TestServer;
  const logged: string[] = [];
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ five, inspect }), {
      config: await configureAuth(RULES),
      log: pino({ level: "warn" }, { write: (line: string) => void logged.push(line) }),
    });
  });
  const client = (token: string) => createClient(server.url, as(token));
  const status = async (token: string, path: string, init: Parameters<typeof request>[2] = {}) =>
    (await request(server.url, path, { ...init, headers: as(token) })).status;

  it("filters by values and by what arrays contain", async () => {
    const make = async (metadata: Record<string, unknown>): Promise<string> =>
      (await client("admin").threads.create({ metadata })).thread_id;
    const [both, one, text, level, deep] = await Promise.all([
      make({ members: ["all", "shared:ada", "x"] }),
      make({ members: ["shared:ada"] }),
      make({ members: "shared:ada all" }),
      make({ level: 3, open: true }),
      make({ level: 3, open: "true", members: { all: 1, "shared:ada": 1 } }),
    ]);
    const found = async (token: string): Promise<string[]> =>
      (await client(token).threads.search()).map(({ thread_id }) => thread_id);
    expect(await found("shared:ada")).toEqual([both]);
    expect(await found("shared:eve")).toEqual([]);
    expect(await found("level")).toEqual([level]);
    expect((await found("admin")).toSorted()).toEqual([both, one, text, level, deep].toSorted());
  });

  it("refuses as the handler says, and never opens a door by mistake", async () => {
    const { thread_id } = await client("admin").threads.create();
    const path = `/threads/${thread_id}`;
    expect(await status("nobody", path)).toBe(403);
    expect(await status("teapot", path)).toBe(418);
    expect(await status("admin", path, { method: "DELETE" })).toBe(403);
    expect(await status("crash", path)).toBe(403);
    expect(await status("operator", path)).toBe(500);
    expect(await status("bad", `${path}/runs`, { json: { assistant_id: "five" } })).toBe(500);
    expect(await status("thief", `${path}/runs`, { json: { assistant_id: "five" } })).toBe(500);
    const log = logged.join("");
    expect(log).toContain("Cannot read properties of undefined");
    expect(log).toContain('\\"level\\" is an object with $gt');
    expect(log).toContain("changed value.metadata into something invalid");
    expect(log).toContain("changed value.thread_id which cannot be changed");
    expect(await status("admin", path)).toBe(200);
  });

  it("does not let anybody write themselves, or others, out of their filter", async () => {
    const members = ["all", "shared:ada"];
    const { thread_id } = await client("shared:ada").threads.create({ metadata: { members } });
    const taken = { json: { metadata: { members: ["shared:eve", "all"] } } };
    const path = `/threads/${thread_id}`;
    expect(await status("shared:ada", path, { method: "PATCH", ...taken })).toBe(403);
    expect(await status("shared:ada", "/threads", taken)).toBe(403);
    const more = { json: { metadata: { members: ["shared:eve", ...members] } } };
    expect(await status("shared:ada", path, { method: "PATCH", ...more })).toBe(200);
    expect(await status("shared:eve", path)).toBe(200);
  });

  it("does not go back to a version of an assistant that a filter hides", async () => {
    const metadata = { owner: "ada" };
    const { assistant_id } = await client("ada").assistants.create({ graphId: "five", metadata });
    await client("ada").assistants.update(assistant_id, { metadata: { note: "second" } });
    expect(await client("ada").assistants.getVersions(assistant_id)).toHaveLength(2);
    await client("ada").assistants.setLatest(assistant_id, 1);
    expect(
      await status("eve", `/assistants/${assistant_id}/latest`, { json: { version: 2 } }),
    ).toBe(404);
    expect(
      await status("ada", `/assistants/${assistant_id}`, {
        method: "PATCH",
        json: { metadata: { owner: "eve" } },
      }),
    ).toBe(403);
  });

  it("runs with what the handler made of the run", async () => {
    const values = await client("ada").runs.wait(null, "inspect", { input: { input: "mine" } });
    expect(values).toMatchObject({ context: { by: "ada" } });
    const run = await client("ada").runs.create(null, "five", {});
    expect(run).toMatchObject({ kwargs: { input: { input: "of the handler" } } });
  });

  it("does not give a run without a thread to the owner of its assistant", async () => {
    const { assistant_id } = await client("owner:bob").assistants.create({
      graphId: "five",
      metadata: { owner: "owner:bob", kind: "shared" },
    });
    const stream = (runId: string) => status("owner:bob", `/runs/${runId}/stream`);
    const foreign = await client("guest").runs.create(null, assistant_id, {});
    expect(foreign.metadata).toMatchObject({ kind: "shared" });
    expect(await stream(foreign.run_id)).toBe(404);
    const metadata = { owner: "owner:bob" };
    const own = await client("owner:bob").runs.create(null, assistant_id, { metadata });
    expect(await stream(own.run_id)).toBe(200);
  });

  it("asks a filter of an item's value, key and namespace", async () => {
    const ada = client("ada").store;
    const eve = client("eve").store;
    await ada.putItem(["ada", "n"], "k", { owner: "ada" });
    expect(await eve.getItem(["ada", "n"], "k")).toBeNull();
    const item = { namespace: ["ada", "n"], key: "k", value: { owner: "eve" } };
    expect(await status("eve", "/store/items", { method: "PUT", json: item })).toBe(404);
    const planted = { ...item, key: "other", value: { owner: "ada" } };
    expect(await status("eve", "/store/items", { method: "PUT", json: planted })).toBe(403);
    await eve.deleteItem(["ada", "n"], "k");
    expect((await ada.getItem(["ada", "n"], "k"))?.value).toEqual({ owner: "ada" });
    await eve.putItem(["eve"], "k", { owner: "eve" });
    expect((await eve.searchItems([])).items.map(({ namespace }) => namespace)).toEqual([["eve"]]);
    expect((await eve.listNamespaces()).namespaces).toEqual([["eve"]]);
    expect((await ada.listNamespaces()).namespaces).toEqual([["ada", "n"]]);
  });
});
