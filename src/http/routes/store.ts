import type { Item as StoreItem } from "@langchain/langgraph-checkpoint";
import { z } from "zod";
import {
  Item,
  StoreDelete,
  StoreGetQuery,
  StoreNamespaces,
  StorePut,
  StoreSearch,
} from "../../protocol/store.ts";
import { ServerError } from "../../errors.ts";
import type { DatabaseStore } from "../../storage/store.ts";
import { changesOf } from "../authorization.ts";
import { route, type Route } from "../route.ts";
import { StoreAccess } from "../store-access.ts";

/** `/store`: what graphs remember across threads. */
export function storeRoutes(deps: { store: DatabaseStore }): Route[] {
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
      value: "by-route",
      async handle({ body, authorize }) {
        if (body.index && !store.hasIndex) throw noIndex();
        const given = { namespace: body.namespace, key: body.key, value: body.value };
        const { filter, value } = await authorize("store:put", given);
        const item = { ...given, ...changesOf("store:put", StorePut, { given, left: value }) };
        await new StoreAccess(store, filter).put(item, () =>
          store.put(item.namespace, item.key, item.value, body.index, { ttl: body.ttl }),
        );
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
      value: "by-route",
      async handle({ query, authorize }) {
        const given = { namespace: query.namespace, key: query.key };
        const { filter, value } = await authorize("store:get", given);
        const at = { ...given, ...changesOf("store:get", StoreDelete, { given, left: value }) };
        const item = await new StoreAccess(store, filter).get(at.namespace, at.key, {
          refreshTtl: query.refresh_ttl,
        });
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
      value: "by-route",
      async handle({ body, authorize }) {
        const given = { namespace: body.namespace, key: body.key };
        const { filter, value } = await authorize("store:delete", given);
        const at = { ...given, ...changesOf("store:delete", StoreDelete, { given, left: value }) };
        await new StoreAccess(store, filter).delete(at.namespace, at.key);
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
      value: "by-route",
      async handle({ body, authorize }) {
        const { namespace_prefix: namespace, filter: wanted, limit, offset, query } = body;
        const given = { namespace, filter: wanted, limit, offset, query };
        const { filter, value } = await authorize("store:search", given);
        const fields = StoreSearch.extend({ namespace: StoreSearch.shape.namespace_prefix });
        const asked = { ...given, ...changesOf("store:search", fields, { given, left: value }) };
        const items = await new StoreAccess(store, filter).search(asked.namespace, {
          limit: asked.limit,
          offset: asked.offset,
          ...(asked.filter && { filter: asked.filter }),
          ...(asked.query !== undefined && { query: asked.query }),
          refreshTtl: body.refresh_ttl,
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
      value: "by-route",
      async handle({ body, authorize }) {
        const { prefix: namespace, suffix, max_depth, limit, offset } = body;
        const given = { namespace, suffix, max_depth, limit, offset };
        const event = "store:list_namespaces";
        const { filter, value } = await authorize(event, given);
        const fields = StoreNamespaces.extend({ namespace: StoreNamespaces.shape.prefix });
        const asked = { ...given, ...changesOf(event, fields, { given, left: value }) };
        const namespaces = await new StoreAccess(store, filter).listNamespaces({
          limit: asked.limit,
          offset: asked.offset,
          ...(asked.namespace && { prefix: asked.namespace }),
          ...(asked.suffix && { suffix: asked.suffix }),
          ...(asked.max_depth !== undefined && { maxDepth: asked.max_depth }),
        });
        return { json: { namespaces } };
      },
    }),
  ];
}

function noIndex(): ServerError {
  return new ServerError(
    "unsupported_field",
    'Unsupported field "index": this server finds nothing by meaning. Configure store.index, or leave it out.',
  );
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
