import { readFile, readdir } from "node:fs/promises";
import { Client } from "pg";
import type { PostgresServer } from "../../test/support/postgres-server.ts";

/** The cluster's database, and what can go wrong with it. The opener closes it. */
export interface LabDatabase {
  url: string;
  query<Row>(sql: string, values?: unknown[]): Promise<Row[]>;
  /** Ends every connection but this one. Gives how many. */
  dropConnections(): Promise<number>;
  /** Ends the connections that listen for notifications, again and again for `ms`. */
  deafen(ms: number): Promise<void>;
  /** SIGSTOP to the whole server, and SIGCONT after `ms`. Only of a server of our own. */
  freeze(ms: number): Promise<void>;
  /** Stops the server and starts it again. Only of a server of our own. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

const DEAF_EVERY_MS = 200;

/** `server` is given where it may be restarted and frozen. */
export function openLabDatabase(url: string, server?: PostgresServer): LabDatabase {
  let client: Promise<Client> | undefined;
  const connect = async (): Promise<Client> => {
    const opened = new Client({ connectionString: url });
    opened.on("error", () => {
      client = undefined;
    });
    await opened.connect();
    return opened;
  };
  const query = async <Row>(sql: string, values: unknown[] = []): Promise<Row[]> => {
    client ??= connect();
    client.catch(() => {
      client = undefined;
    });
    const { rows } = await (await client).query(sql, values);
    return rows as Row[];
  };
  const end = async (where: string): Promise<number> => {
    const rows = await query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND pid <> pg_backend_pid() AND ${where}`,
    );
    return rows.length;
  };
  const own = (): PostgresServer => {
    if (!server) throw new Error("this database is not ours to stop");
    return server;
  };
  return {
    url,
    query,
    dropConnections: () => end("true"),
    async deafen(ms) {
      const until = Date.now() + ms;
      while (Date.now() < until) {
        await end("query ILIKE 'listen%'");
        await new Promise((resolve) => setTimeout(resolve, DEAF_EVERY_MS));
      }
    },
    async freeze(ms) {
      const pids = await family(await own().pid());
      for (const pid of pids) process.kill(pid, "SIGSTOP");
      await new Promise((resolve) => setTimeout(resolve, ms));
      for (const pid of pids) process.kill(pid, "SIGCONT");
    },
    async restart() {
      await own().restart();
      client = undefined;
    },
    async close() {
      await (await client?.catch(() => undefined))?.end();
    },
  };
}

/** A process and its children, on Linux. */
async function family(parent: number): Promise<number[]> {
  const pids = (await readdir("/proc")).map(Number).filter((pid) => pid > 0);
  const children = await Promise.all(
    pids.map(async (pid) => {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
      // The second field is a name in brackets, which may hold spaces.
      return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) === parent ? [pid] : [];
    }),
  );
  return [parent, ...children.flat()];
}
