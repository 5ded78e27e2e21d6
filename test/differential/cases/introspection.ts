import type { Cases } from "./case.ts";

/** What graphs tell of themselves, and what the store's filters find. */
export const introspectionCases: Cases = {
  "graphs, drawn": async (probe) => {
    for (const graph of ["steps", "nested", "routed", "typed"]) {
      await probe.send(graph, `GET /assistants/${graph}/graph`);
      await probe.send(`${graph} opened`, `GET /assistants/${graph}/graph?xray=true`);
    }
  },
  "the schemas of a graph": async (probe) => {
    await probe.send("schemas", "GET /assistants/typed/schemas");
    await probe.send("subgraphs", "GET /assistants/typed/subgraphs");
  },
  "store filters": async (probe) => {
    const root = probe.id("root");
    const values: Record<string, Record<string, unknown>> = {
      one: { n: 1, text: "a", flag: true },
      two: { n: 2, text: "b", flag: false },
      words: { n: "2", text: "c" },
      none: { other: 1 },
      null: { n: null },
    };
    for (const [key, value] of Object.entries(values)) {
      await probe.client.store.putItem([root], key, value);
    }
    const filters: Record<string, Record<string, unknown>> = {
      literal: { n: 2 },
      text: { n: "2" },
      boolean: { flag: false },
      nothing: { n: null },
      several: { n: 1, text: "a" },
      equal: { n: { $eq: 1 } },
      unequal: { n: { $ne: 1 } },
      between: { n: { $gt: 0, $lte: 1 } },
      less: { n: { $lt: 2, $gte: 1 } },
    };
    for (const [label, filter] of Object.entries(filters)) {
      await probe.call(label, async (client) => {
        const { items } = await client.store.searchItems([root], { filter });
        return items.map(({ key }) => key).toSorted();
      });
    }
  },
};
