import { copyFile, mkdtemp, mkdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createProject, startChild, type ChildServer } from "../../test/support/child-server.ts";
import { startPostgres } from "../../test/support/postgres-server.ts";

/** Server processes on one PostgreSQL with its own defaults. The opener closes them. */
export interface Servers {
  databaseUrl: string;
  list: readonly ChildServer[];
  close(): Promise<void>;
}

/** Opens `count` processes that answer requests and execute up to `slots` runs each. */
export async function openServers(count: number, slots: number): Promise<Servers> {
  const folder = await mkdtemp(join(tmpdir(), "aegra-scale-"));
  const closers: (() => Promise<unknown>)[] = [() => rm(folder, { recursive: true, force: true })];
  const close = async (): Promise<void> => {
    for (const closer of closers.toReversed()) await closer();
  };
  try {
    const data = join(folder, "data");
    await mkdir(data);
    const postgres = await startPostgres(folder, []);
    closers.push(postgres.stop);
    const project = await createProject({
      "aegra.json": JSON.stringify({
        graphs: {
          five: "./bench.ts:five",
          patient: "./scale.ts:patient",
          ticker: "./scale.ts:ticker",
          sleeper: "./scale.ts:sleeper",
        },
      }),
    });
    closers.push(project.remove);
    await copyFile(pathOf("../project/graphs.ts"), join(project.folder, "bench.ts"));
    await copyFile(pathOf("project/graphs.ts"), join(project.folder, "scale.ts"));
    const list: ChildServer[] = [];
    for (let at = 0; at < count; at += 1) {
      const child = await startChild(project.folder, {
        DATABASE_URL: postgres.url,
        AEGRA_DATA_DIR: data,
        N_JOBS_PER_WORKER: String(slots),
        LOG_LEVEL: "warn",
        BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS: "0",
      });
      closers.push(() => child.kill("SIGTERM"));
      list.push(child);
    }
    return { databaseUrl: postgres.url, list, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function pathOf(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}
