import { expect, it, beforeAll } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { five, inspect, registryOf } from "../support/graphs.ts";
import { request, startServer, type TestServer } from "../support/server.ts";

const UNKNOWN = "00000000-0000-4000-8000-000000000000";

describeDatabases("assistants", (databases) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ five, inspect }));
  });

  it("has one for every graph, found by its id and by the graph's", async () => {
    const { client } = server;
    const [byGraph, found] = await Promise.all([
      client.assistants.get("five"),
      client.assistants.search({ graphId: "five", metadata: { created_by: "system" } }),
    ]);
    // uuid5 of "five" in the namespace of the LangGraph API.
    expect(byGraph).toMatchObject({
      assistant_id: "39d92bad-6190-5184-977a-f941564b7855",
      graph_id: "five",
      name: "five",
      version: 1,
      config: {},
      context: {},
      metadata: { created_by: "system" },
    });
    expect(found).toEqual([byGraph]);
    expect(await client.assistants.get(byGraph.assistant_id)).toEqual(byGraph);
    expect(await client.assistants.get(byGraph.assistant_id.toUpperCase())).toEqual(byGraph);
  });

  it("creates one as it is asked to", async () => {
    const { client } = server;
    const id = "AAAAAAAA-0000-0000-0000-000000000001";
    const created = await client.assistants.create({
      assistantId: id,
      graphId: "inspect",
      name: "Looker",
      description: "Looks",
      config: { tags: ["a"], recursion_limit: 7, configurable: { colour: "red" } },
      context: { tone: "kind" },
      metadata: { team: "one", nested: { deep: [1, null, "ü"] } },
    });
    expect(created).toMatchObject({
      assistant_id: id.toLowerCase(),
      graph_id: "inspect",
      name: "Looker",
      description: "Looks",
      config: { tags: ["a"], recursion_limit: 7, configurable: { colour: "red" } },
      context: { tone: "kind" },
      metadata: { team: "one", nested: { deep: [1, null, "ü"] } },
      version: 1,
    });
    expect(created.created_at).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    expect(await client.assistants.get(created.assistant_id)).toEqual(created);
  });

  it("keeps the one that exists, if asked to, and refuses otherwise", async () => {
    const { client } = server;
    const first = await client.assistants.create({ graphId: "five", name: "First" });
    const again = { assistantId: first.assistant_id, graphId: "inspect", name: "Second" };
    await expect(client.assistants.create(again)).rejects.toMatchObject({
      status: 409,
      text: expect.stringContaining("Assistant already exists") as string,
    });
    expect(await client.assistants.create({ ...again, ifExists: "do_nothing" })).toEqual(first);
  });

  it("refuses a graph it does not have, and an id it does not know", async () => {
    const { client, url } = server;
    await expect(client.assistants.create({ graphId: "nowhere" })).rejects.toMatchObject({
      status: 404,
      text: expect.stringContaining('Graph \\"nowhere\\" not found') as string,
    });
    const missing = await request(url, `/assistants/${UNKNOWN}`);
    expect(missing.status).toBe(404);
    expect(missing.json).toMatchObject({ code: "not_found" });
    expect(await request(url, "/assistants/nowhere")).toMatchObject({
      status: 404,
      json: { detail: "Assistant not found" },
    });
    const neither = await request(url, "/runs", { json: { assistant_id: "nowhere" } });
    expect(neither.status).toBe(404);
    expect(neither.json).toMatchObject({
      detail: expect.stringContaining("five, inspect") as string,
    });
  });

  it("searches by graph, name and metadata, a page at a time, in the asked order", async () => {
    const { client, url } = server;
    for (const name of ["Delta 100%", "alpha", "Charlie", "bravo"]) {
      await client.assistants.create({
        graphId: "five",
        name,
        metadata: { suite: "search", tags: ["x", name] },
      });
    }
    const mine = { metadata: { suite: "search" } };
    const names = (found: { name: string }[]) => found.map(({ name }) => name);
    expect(names(await client.assistants.search(mine))).toEqual([
      "bravo",
      "Charlie",
      "alpha",
      "Delta 100%",
    ]);
    expect(
      names(await client.assistants.search({ ...mine, sortBy: "created_at", sortOrder: "asc" })),
    ).toEqual(["Delta 100%", "alpha", "Charlie", "bravo"]);
    const byName = names(
      await client.assistants.search({ ...mine, sortBy: "name", sortOrder: "asc" }),
    );
    expect(byName.toSorted((a, b) => a.localeCompare(b))).toHaveLength(4);
    expect(
      names(await client.assistants.search({ ...mine, sortBy: "name", sortOrder: "desc" })),
    ).toEqual(byName.toReversed());
    expect(names(await client.assistants.search({ ...mine, name: "CHAR" }))).toEqual(["Charlie"]);
    expect(names(await client.assistants.search({ ...mine, name: "0%" }))).toEqual(["Delta 100%"]);
    expect(names(await client.assistants.search({ metadata: { tags: ["alpha"] } }))).toEqual([
      "alpha",
    ]);
    expect(await client.assistants.search({ ...mine, graphId: "inspect" })).toEqual([]);
    expect(await client.assistants.count(mine)).toBe(4);
    expect(await client.assistants.count({ ...mine, name: "alp" })).toBe(1);

    const page = await client.assistants.search({
      ...mine,
      limit: 3,
      offset: 0,
      includePagination: true,
    });
    expect(names(page.assistants)).toHaveLength(3);
    expect(page.next).toBe("3");
    const last = await request(url, "/assistants/search", {
      json: { ...mine, limit: 3, offset: 3 },
    });
    expect(last.headers.get("x-pagination-total")).toBe("4");
    expect(last.headers.get("x-pagination-next")).toBeNull();
    expect(last.json).toHaveLength(1);
  });

  it("answers only the fields that were asked for", async () => {
    const { client } = server;
    const found = await client.assistants.search({ graphId: "five", select: ["name", "version"] });
    expect(found.length).toBeGreaterThan(0);
    for (const assistant of found) {
      expect(Object.keys(assistant).toSorted()).toEqual(["name", "version"]);
    }
  });

  it("brings its config, context and metadata into its runs; the run's own win", async () => {
    const { client } = server;
    const { assistant_id } = await client.assistants.create({
      graphId: "inspect",
      config: { tags: ["own"], recursion_limit: 9, configurable: { colour: "red", size: 1 } },
      context: { tone: "kind", length: "short" },
      metadata: { team: "one", level: "low" },
    });
    const plain = (await client.runs.wait(null, assistant_id, { input: {} })) as Record<
      string,
      unknown
    >;
    expect(plain).toMatchObject({
      configurable: { colour: "red", size: 1, assistant_id, graph_id: "inspect" },
      context: { tone: "kind", length: "short" },
      metadata: { team: "one", level: "low", assistant_id },
      tags: ["own"],
      recursionLimit: 9,
    });
    const overridden = (await client.runs.wait(null, assistant_id, {
      input: {},
      config: { configurable: { colour: "blue" }, recursion_limit: 11 },
      context: { length: "long" },
      metadata: { level: "high" },
    })) as Record<string, unknown>;
    expect(overridden).toMatchObject({
      configurable: { colour: "blue", size: 1 },
      context: { tone: "kind", length: "long" },
      metadata: { team: "one", level: "high" },
      recursionLimit: 11,
    });
  });
});
