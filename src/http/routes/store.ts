import type { BaseStore, Item as StoreItem } from "@langchain/langgraph-checkpoint";
import { z } from "zod";
import {
  Item,
  StoreDelete,
  StoreGetQuery,
  StoreNamespaces,
  StorePut,
  StoreSearch,
} from "../../protocol/store.ts";
import { route, type Route } from "../route.ts";

/** `/store`: what graphs remember across threads. */
export function storeRoutes(deps: { store: BaseStore }): Route[] {
  const { store } = deps;
  return [
    route({
      method: "put",
      path: "/store/items",
      summary: "Write an item",
      tag: "Store",
      permission: "store:put",
      body: StorePut,
      answer: { status: 204, description: "Written" },
      async handle({ body }) {
        await store.put(body.namespace, body.key, body.value);
        return new Response(null, { status: 204 });
      },
    }),
    route({
      method: "get",
      path: "/store/items",
      summary: "Read an item; null if there is none",
      tag: "Store",
      permission: "store:get",
      query: StoreGetQuery,
      answer: { status: 200, description: "The item", schema: Item.nullable() },
      async handle({ query }) {
        const item = await store.get(query.namespace, query.key);
        return { json: item ? toItem(item) : null };
      },
    }),
    route({
      method: "delete",
      path: "/store/items",
      summary: "Delete an item",
      tag: "Store",
      permission: "store:delete",
      body: StoreDelete,
      answer: { status: 204, description: "Deleted, or there was none" },
      async handle({ body }) {
        await store.delete(body.namespace, body.key);
        return new Response(null, { status: 204 });
      },
    }),
    route({
      method: "post",
      path: "/store/items/search",
      summary: "Search items under a namespace",
      tag: "Store",
      permission: "store:search",
      body: StoreSearch,
      answer: {
        status: 200,
        description: "The items",
        schema: z.object({ items: z.array(Item.extend({ score: z.number().nullable() })) }),
      },
      async handle({ body }) {
        const items = await store.search(body.namespace_prefix, {
          limit: body.limit,
          offset: body.offset,
          ...(body.filter && { filter: body.filter }),
          ...(body.query !== undefined && { query: body.query }),
        });
        return {
          json: { items: items.map((item) => ({ ...toItem(item), score: item.score ?? null })) },
        };
      },
    }),
    route({
      method: "post",
      path: "/store/namespaces",
      summary: "List namespaces",
      tag: "Store",
      permission: "store:list_namespaces",
      body: StoreNamespaces,
      answer: {
        status: 200,
        description: "The namespaces",
        schema: z.object({ namespaces: z.array(z.array(z.string())) }),
      },
      async handle({ body }) {
        const namespaces = await store.listNamespaces({
          limit: body.limit,
          offset: body.offset,
          ...(body.prefix && { prefix: body.prefix }),
          ...(body.suffix && { suffix: body.suffix }),
          ...(body.max_depth !== undefined && { maxDepth: body.max_depth }),
        });
        return { json: { namespaces } };
      },
    }),
  ];
}

function toItem(item: StoreItem): Item {
  return {
    namespace: item.namespace,
    key: item.key,
    value: item.value,
    created_at: item.createdAt,
    updated_at: item.updatedAt,
  };
}
