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
