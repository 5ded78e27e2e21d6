import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execute, startPostgres } from "../../test/support/postgres-server.ts";
import type { ChildServer } from "../../test/support/child-server.ts";
import { createTracedProject, type TracedProject } from "../../test/support/traced-project.ts";
import { startChild, type Child } from "../child.ts";
import { exhaust, offer, type Load } from "./load.ts";
import { FAULTS, mountDisk, OUTBOX, type Fault } from "./matrix.ts";
import type { Checked, Question } from "./receiver.ts";
import { sample, type Sample } from "./samples.ts";

/** What one fault gave. Without `spans` there was no tracing. */
export interface Row {
  fault: string;
  rate: number;
  runs: number;
  failed: number;
  p50: number;
  p99: number;
  spans: number | undefined;
  duplicates: number;
  different: number;
  /** Answered runs whose trace is not whole. */
  lost: number;
  /** While runs were asked, and until the last of them was answered. */
  elapsedMs: number;
  /** From the end of the fault until every trace was whole. */
  recoveredMs: number | undefined;
}

/** Where traces wait: on disk; or in the database, each process with a disk that is as good as thrown away. */
export type Spool = "disk" | "database";

/** A project, a database, and a stand-in for Langfuse. One thing at a time. Whoever opens it closes it. */
export interface Lab {
  untraced(rate: number, durationMs: number): Promise<Row>;
  fault(fault: Fault, rate: number, outageMs: number): Promise<Row>;
  /** `kill -9` at random moments under load, each followed by a start. */
  kills(rate: number, count: number, spool?: Spool): Promise<Row>;
  /** SIGTERM while Langfuse hangs. */
  terminated(rate: number, outageMs: number, spool?: Spool): Promise<Row>;
  /** Two servers with one database, and one folder or none in common; one is killed in the middle. */
  twoProcesses(rate: number, outageMs: number, spool?: Spool): Promise<Row>;
  /** Many runs of nodes that take 5 ms, as many at once as one process may do, as fast as it can. */
  burst(rate: number, count: number): Promise<Row>;
  /** One server under one random fault after the other, and what it holds meanwhile. */
  soak(rate: number, durationMs: number): Promise<{ row: Row; samples: Sample[] }>;
  close(): Promise<void>;
}

const CONCURRENCY = "50";
const BURST_AT_ONCE = 100;
/** Longer than the longest wait between two tries. */
const PATIENCE_MS = 120_000;
const LOOK_EVERY_MS = 200;
const WARM_MS = 5_000;

/** The PostgreSQL of all labs: the one that is given, or one of their own. Whoever opens it closes it. */
export async function openPostgres(): Promise<{ url: string; close(): Promise<void> }> {
  const given = process.env["DATABASE_URL"];
  if (given !== undefined) return { url: given, close: async () => {} };
  const folder = await mkdtemp(join(tmpdir(), "aegra-faults-"));
  const postgres = await startPostgres(folder);
  return {
    url: postgres.url,
    async close() {
      await postgres.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

export async function openLab(databaseUrl: string): Promise<Lab> {
  const receiver = startChild("faults/receiver.ts");
  const ask = <T>(question: Question): Promise<T> => receiver.ask<T>(question);
  const langfuse = await ask<{ url: string; publicKey: string; secretKey: string }>({
    what: "open",
  });
  return new PostgresLab({ databaseUrl, receiver, langfuse });
}

interface Parts {
  databaseUrl: string;
  receiver: Child;
  langfuse: { url: string; publicKey: string; secretKey: string };
}

class PostgresLab implements Lab {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  async untraced(rate: number, durationMs: number): Promise<Row> {
    const { project, close } = await this.#project();
    const server = await project.start({ LANGFUSE_LOGGING: "false" });
    await warm(server, rate);
    const load = await offer([server.url], rate, after(durationMs));
    await server.kill("SIGTERM");
    await close();
    return toRow("tracing off", rate, load);
  }

  async fault(fault: Fault, rate: number, outageMs: number): Promise<Row> {
    const disk = fault.disk === undefined ? undefined : await mountDisk(fault.disk.options);
    const { project, close } = await this.#project(
      disk === undefined
        ? { AEGRA_TRACES_SPOOL: fault.spool ?? "disk" }
        : { AEGRA_TRACES_DIR: join(disk.folder, "traces") },
    );
    let server = await project.start(fault.wrong?.(this.#parts.langfuse.url) ?? {});
    const ready = await warm(server, rate);
    if (fault.behaviour) await this.#ask({ what: "behave", behaviour: fault.behaviour });
    const load = await offer([server.url], rate, after(outageMs));
    load.answered.push(...ready);
    if (fault.wrong) {
      await server.kill();
      server = await project.start();
    }
    await this.#ask({ what: "behave", behaviour: { kind: "accept" } });
    const row = await this.#settle(fault.name, rate, load);
    await server.kill("SIGTERM");
    await close();
    await disk?.remove();
    return row;
  }

  async kills(rate: number, count: number, spool: Spool = "disk"): Promise<Row> {
    const { project, close } = await this.#project({ AEGRA_TRACES_SPOOL: spool });
    const all: Load = { asked: 0, answered: [], failures: [], latencies: [], elapsedMs: 0 };
    for (let round = 0; round < count; round += 1) {
      // Every other time what was spooled has to wait, too.
      const behaviour =
        round % 2 === 0 ? ({ kind: "accept" } as const) : ({ kind: "hang" } as const);
      await this.#ask({ what: "behave", behaviour });
      const server = await project.start();
      let killed = false;
      const kill = (async () => {
        await new Promise((resolve) => setTimeout(resolve, 300 + Math.random() * 2_000));
        await server.kill();
        killed = true;
      })();
      const load = await offer([server.url], rate, () => killed);
      await kill;
      all.answered.push(...load.answered);
      all.latencies.push(...load.latencies);
      all.elapsedMs += load.elapsedMs;
    }
    await this.#ask({ what: "behave", behaviour: { kind: "accept" } });
    const server = await project.start();
    const row = await this.#settle(`${placed(spool)}kill -9, ${count} times`, rate, all);
    await server.kill("SIGTERM");
    await close();
    return row;
  }

  async terminated(rate: number, outageMs: number, spool: Spool = "disk"): Promise<Row> {
    const { project, close } = await this.#project({
      AEGRA_TRACES_SPOOL: spool,
      BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS: "2",
    });
    await this.#ask({ what: "behave", behaviour: { kind: "hang" } });
    const first = await project.start();
    const load = await offer([first.url], rate, after(outageMs));
    const code = await first.kill("SIGTERM");
    if (code !== 0) load.failures.push(`SIGTERM ended with code ${code}`);
    await this.#ask({ what: "behave", behaviour: { kind: "accept" } });
    const second = await project.start();
    const row = await this.#settle(`${placed(spool)}SIGTERM, receiver hangs`, rate, load);
    await second.kill("SIGTERM");
    await close();
    return row;
  }

  async twoProcesses(rate: number, outageMs: number, spool: Spool = "disk"): Promise<Row> {
    const { project, close } = await this.#project({ AEGRA_TRACES_SPOOL: spool });
    const folder = (name: string): Record<string, string> =>
      spool === "disk" ? {} : { AEGRA_DATA_DIR: join(project.folder, name) };
    const servers = await Promise.all([project.start(folder("one")), project.start(folder("two"))]);
    await this.#ask({ what: "behave", behaviour: { kind: "status", status: 503 } });
    const both = await offer(
      servers.map(({ url }) => url),
      rate,
      after(outageMs / 2),
    );
    await servers[0].kill();
    const one = await offer([servers[1].url], rate, after(outageMs / 2));
    await this.#ask({ what: "behave", behaviour: { kind: "accept" } });
    const row = await this.#settle(`${placed(spool)}two processes, one killed, 503`, rate, {
      asked: both.asked + one.asked,
      answered: [...both.answered, ...one.answered],
      failures: [...both.failures, ...one.failures],
      latencies: [...both.latencies, ...one.latencies],
      elapsedMs: both.elapsedMs + one.elapsedMs,
    });
    await servers[1].kill("SIGTERM");
    await close();
    return row;
  }

  async burst(rate: number, count: number): Promise<Row> {
    const { project, close } = await this.#project({ N_JOBS_PER_WORKER: `${BURST_AT_ONCE}` });
    const server = await project.start();
    const load = await exhaust(server.url, "brief", { count, atOnce: BURST_AT_ONCE });
    const perSecond = Math.round(load.answered.length / (load.elapsedMs / 1_000));
    const row = await this.#settle(
      `nodes of 5 ms, ${BURST_AT_ONCE} runs at once: ${perSecond} a second`,
      rate,
      load,
    );
    await server.kill("SIGTERM");
    await close();
    return row;
  }

  async soak(rate: number, durationMs: number): Promise<{ row: Row; samples: Sample[] }> {
    const { project, close } = await this.#project();
    const server = await project.start();
    const samples: Sample[] = [];
    const spool = join(project.folder, ".aegra", "traces");
    const over = after(durationMs);
    const faults = FAULTS.flatMap(({ behaviour }) => behaviour ?? []);
    const trouble = (async () => {
      while (!over()) {
        const fault = faults[Math.floor(Math.random() * faults.length)];
        // Every trouble passes, and may come back at once.
        const behaviour = samples.length % 2 === 0 ? fault : undefined;
        await this.#ask({ what: "behave", behaviour: behaviour ?? { kind: "accept" } });
        const next = after(1_000 + Math.random() * 9_000);
        while (!next() && !over()) await new Promise((resolve) => setTimeout(resolve, 100));
        samples.push(await sample(server.process.pid ?? 0, spool));
      }
    })();
    const load = await offer([server.url], rate, over);
    await trouble;
    await this.#ask({ what: "behave", behaviour: { kind: "accept" } });
    const row = await this.#settle(
      `random faults, ${Math.round(durationMs / 1_000)} s`,
      rate,
      load,
    );
    await server.kill("SIGTERM");
    await close();
    return { row, samples };
  }

  async close(): Promise<void> {
    await this.#parts.receiver.close();
  }

  #ask<T>(question: Question): Promise<T> {
    return this.#parts.receiver.ask<T>(question);
  }

  /** A project with a database of its own, as a user would start it. */
  async #project(
    env: Record<string, string> = {},
  ): Promise<{ project: TracedProject; close: () => Promise<void> }> {
    await this.#ask({ what: "behave", behaviour: { kind: "accept" } });
    await this.#ask({ what: "clear" });
    const name = `faults_${randomBytes(6).toString("hex")}`;
    const admin = this.#parts.databaseUrl;
    await execute(admin, `CREATE DATABASE ${name}`);
    const url = new URL(admin);
    url.pathname = `/${name}`;
    const project = await createTracedProject(this.#parts.langfuse, {
      DATABASE_URL: url.href,
      N_JOBS_PER_WORKER: CONCURRENCY,
      LANGFUSE_TIMEOUT: "5",
      LANGFUSE_FLUSH_INTERVAL: "1",
      LOG_LEVEL: "warn",
      ...env,
    });
    return {
      project,
      async close() {
        await execute(admin, `DROP DATABASE ${name} WITH (FORCE)`);
        await project.remove();
      },
    };
  }

  /** Waits until every trace is whole. */
  async #settle(fault: string, rate: number, load: Load): Promise<Row> {
    const begun = Date.now();
    let checked: Checked;
    do {
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
      checked = await this.#ask<Checked>({ what: "check", traceIds: load.answered });
    } while (checked.missing.length > 0 && Date.now() - begun < PATIENCE_MS);
    const lost = new Set(checked.missing.map((text) => text.split(":")[0])).size;
    for (const text of [...load.failures, ...checked.missing].slice(0, 5))
      process.stderr.write(`  ${text}\n`);
    return {
      ...toRow(fault, rate, load),
      spans: checked.spans,
      duplicates: checked.duplicates,
      different: checked.different,
      lost,
      recoveredMs: Date.now() - begun,
    };
  }
}

function placed(spool: Spool): string {
  return spool === "database" ? OUTBOX : "";
}

/**
 * Runs that are not measured: the first of their kind are slow, and more of them than a cold process can do leave a
 * queue. Their traces count.
 */
async function warm(server: ChildServer, rate: number): Promise<string[]> {
  const few = await offer([server.url], Math.min(rate, 20), after(1_000));
  const all = await offer([server.url], rate, after(WARM_MS));
  return [...few.answered, ...all.answered];
}

function after(ms: number): () => boolean {
  const end = performance.now() + ms;
  return () => performance.now() > end;
}

function toRow(fault: string, rate: number, load: Load): Row {
  const sorted = load.latencies.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? 0;
  return {
    fault,
    rate,
    runs: load.answered.length,
    failed: load.failures.length,
    p50: at(0.5),
    p99: at(0.99),
    elapsedMs: load.elapsedMs,
    spans: undefined,
    duplicates: 0,
    different: 0,
    lost: 0,
    recoveredMs: undefined,
  };
}
