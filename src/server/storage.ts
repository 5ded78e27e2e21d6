import { dirname } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { toModuleReference } from "../config/module-reference.ts";
import type { Config } from "../config/schema.ts";
import { systemAssistantId } from "../engine/new-run.ts";
import type { GraphRegistry } from "../graphs/registry.ts";
import { loadEmbeddings } from "../modules/embeddings.ts";
import type { Logger } from "../observability/log.ts";
import type { ThreadTtl } from "../protocol/thread-ttl.ts";
import { createAssistantRepository, type AssistantRepository } from "../storage/assistants.ts";
import { openCheckpoints } from "../storage/checkpoints.ts";
import { createCronRepository } from "../storage/crons.ts";
import type { Database } from "../storage/database.ts";
import { migrate } from "../storage/migrate.ts";
import { openDatabase, toOpenOptions } from "../storage/open.ts";
import { createRunBatchRepository } from "../storage/run-batches.ts";
import { createRunEventRepository } from "../storage/run-events.ts";
import { createRunQueue } from "../storage/run-queue.ts";
import { createRunRepository } from "../storage/runs.ts";
import { openStore, type StoreOptions } from "../storage/store.ts";
import { createThreadStateRepository } from "../storage/thread-state.ts";
import { createThreadTtlRepository } from "../storage/thread-ttl.ts";
import { createThreadRepository } from "../storage/threads.ts";
import { createWebhookRepository } from "../storage/webhooks.ts";
import type { Closers } from "./project.ts";

/** Opens the configured database and brings its schema up to this build. Whoever opens it closes it. */
export async function openMigrated(
  config: Config,
  log: Logger,
  closers: Closers,
): Promise<Database> {
  const database = await openDatabase({
    ...toOpenOptions(config.database),
    log: (level, message, details) => log[level](details ?? {}, message),
  });
  closers.push(() => database.close());
  const { applied } = await migrate(database);
  if (applied.length > 0) log.info({ applied }, "database migrated");
  return database;
}

/** What is kept in the database, by resource. */
export type Storage = Awaited<ReturnType<typeof openStorage>>;

/** The repositories on a migrated database. `checkpoints` and `store` are closed before the database is. */
export async function openStorage(
  database: Database,
  { config, log, closers }: { config: Config; log: Logger; closers: Closers },
) {
  const defaultTtl = toDefaultTtl(config.checkpointer);
  const checkpoints = openCheckpoints(database);
  closers.push(() => checkpoints.close());
  const store = await openStore(database, {
    ...(await toStoreOptions(config)),
    onSweepError: (error) =>
      log.warn({ err: error }, "expired items of the store were not removed"),
  });
  closers.push(async () => store.stop());
  return {
    assistants: createAssistantRepository(database),
    batches: createRunBatchRepository(database, { defaultTtl }),
    checkpoints,
    crons: createCronRepository(database, { defaultTtl }),
    queue: createRunQueue(database),
    runEvents: createRunEventRepository(database),
    runs: createRunRepository(database),
    store,
    threads: createThreadRepository(database, { defaultTtl }),
    threadStates: createThreadStateRepository(database),
    ttls: createThreadTtlRepository(database),
    webhooks: createWebhookRepository(database),
  };
}

/**
 * Makes the assistant that every graph has, where it is not there yet. One that is there gets a new version where the
 * environment configures it differently.
 */
export async function registerSystemAssistants(
  assistants: AssistantRepository,
  graphs: GraphRegistry,
  specs: Config["graphs"],
): Promise<void> {
  for (const id of graphs.ids()) {
    const assistantId = systemAssistantId(id);
    const { defaults } = specs[id] ?? {};
    const config = defaults?.config ?? {};
    const context = defaults?.context ?? {};
    const created = await assistants.create({
      assistant_id: assistantId,
      graph_id: id,
      name: id,
      description: graphs.describe(id)?.description ?? null,
      config,
      context,
      metadata: { created_by: "system" },
    });
    if (created || !defaults) continue;
    const there = await assistants.get(assistantId, undefined);
    const isSame = isDeepStrictEqual([there?.config, there?.context], [config, context]);
    if (!isSame) await assistants.patch(assistantId, { config, context }, undefined);
  }
}

/** How long threads are kept that say nothing of it. */
function toDefaultTtl({ ttl }: Config["checkpointer"]): ThreadTtl | undefined {
  if (!ttl?.default_ttl) return undefined;
  return { ttl: ttl.default_ttl, strategy: ttl.strategy ?? "delete" };
}

/** The store's options, with the function that makes its vectors. */
async function toStoreOptions(config: Config): Promise<StoreOptions> {
  const { index, ttl } = config.store;
  return {
    ...(ttl && {
      ttl: {
        ...(ttl.default_ttl !== undefined && { defaultTtl: ttl.default_ttl }),
        ...(ttl.refresh_on_read !== undefined && { refreshOnRead: ttl.refresh_on_read }),
        ...(ttl.sweep_interval_minutes !== undefined && {
          sweepIntervalMinutes: ttl.sweep_interval_minutes,
        }),
      },
    }),
    ...(index && {
      index: {
        ...index,
        embed: await loadEmbeddings(index.embed, {
          cwd: config.cwd,
          toReference: (embed) =>
            toModuleReference(embed, config.configPath ? dirname(config.configPath) : config.cwd),
        }),
      },
    }),
  };
}
