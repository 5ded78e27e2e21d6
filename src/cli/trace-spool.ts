import type { Config } from "../config/schema.ts";
import type { ConfiguredTracingDeps } from "../observability/configured.ts";
import { ServerError } from "../errors.ts";
import {
  findDeadLetters,
  inspectSpool,
  replayDeadLetters,
} from "../observability/delivery/spool-report.ts";
import type { AskSuperseded } from "../observability/delivery/record.ts";
import type { Database } from "../storage/database.ts";
import { openDatabase, toOpenOptions } from "../storage/open.ts";
import { createTraceOutbox } from "../storage/trace-outbox.ts";

/** What waits for one target's stream, and whose it is. */
export interface WaitingReport {
  target: string;
  stream: string;
  records: number;
  bytes: number;
  /** Milliseconds since 1970. */
  oldest: number | undefined;
  /** Sentences' ends, such as `of process 12, which sends them`, with a number each. */
  owners: { records: number; whose: string; pid?: number | undefined; state?: string }[];
  dead_letters: number;
}

export interface WaitingLetter {
  target: string;
  stream: string;
  trace_id: string;
  bytes: number;
  buried_at: string;
  answer: string;
  /** The file, where there is one. */
  path?: string;
}

/** Where the project's traces wait, seen from outside. Whoever opens it closes it. */
export interface TraceSpool {
  /** For a person: the folder, or the database. */
  place: string;
  status(): Promise<WaitingReport[]>;
  deadLetters(): Promise<WaitingLetter[]>;
  /** Puts the dead letters back; gives their number. */
  replay(): Promise<number>;
  /** What nobody but this process will send, on its way into it or there. */
  left(): Promise<number>;
  /** What tracing needs to send from here. */
  outbox: ConfiguredTracingDeps["outbox"];
  /** Asks the runs which attempt tells their trace. Rejects where the database cannot be asked now. */
  superseded: AskSuperseded;
  /** Why something stays, as a sentence, if it is known here. */
  problem(): string | undefined;
  close(): Promise<void>;
}

/**
 * Opens what `tracing.spool` names. Rejects with `startup_failed` if the database cannot be opened, as PGlite
 * cannot while a server has it.
 */
export async function openTraceSpool(config: Config): Promise<TraceSpool> {
  return config.tracing.spool === "database" ? openTable(config) : openFolder(config);
}

/** No more than is needed to look and to send; nobody is to be woken. */
function openProjectDatabase(config: Config): Promise<Database> {
  return openDatabase({ ...toOpenOptions(config.database), maxConnections: 4, listen: false });
}

function openFolder(config: Config): TraceSpool {
  const { directory } = config.tracing;
  const runs = createRunsInquiry(config);
  return {
    place: directory,
    async status() {
      const reports = await inspectSpool(directory);
      return reports.map(({ writers, ...report }) => ({
        ...report,
        owners: writers.map(({ pid, state, records }) => ({
          records,
          pid,
          state,
          whose: {
            alive: `of process ${pid}, which sends them`,
            elsewhere: `of process ${pid} of another host or container`,
            gone: `of a process that is gone: the next start, or "aegra traces flush", sends them`,
          }[state],
        })),
      }));
    },
    async deadLetters() {
      const letters = await findDeadLetters(directory);
      return letters.map(({ target, stream, traceId, bytes, buriedAt, answer, path }) => ({
        target,
        stream,
        trace_id: traceId,
        bytes,
        buried_at: new Date(buriedAt).toISOString(),
        answer,
        path,
      }));
    },
    replay: () => replayDeadLetters(directory),
    async left() {
      const writers = (await inspectSpool(directory)).flatMap((report) => report.writers);
      return writers
        .filter(({ pid, state }) => state === "gone" || pid === process.pid)
        .reduce((total, { records }) => total + records, 0);
    },
    outbox: undefined,
    superseded: runs.superseded,
    problem: runs.problem,
    close: runs.close,
  };
}

/** Asks the runs in the database, which is opened when there is something to ask. */
function createRunsInquiry(config: Config): Pick<TraceSpool, "superseded" | "problem" | "close"> {
  let database: Promise<Database> | undefined;
  let problem: string | undefined;
  return {
    async superseded(roots) {
      database ??= openProjectDatabase(config);
      try {
        const told = await createTraceOutbox(await database).superseded(roots);
        problem = undefined;
        return told;
      } catch (error) {
        problem = `The runs cannot be asked which of their attempts counts: ${error instanceof Error ? error.message : String(error)}`;
        const failed = database;
        database = undefined;
        await failed.then((opened) => opened.close()).catch(() => {});
        throw error;
      }
    },
    problem: () => problem,
    close: async () => (await database)?.close(),
  };
}

async function openTable(config: Config): Promise<TraceSpool> {
  const database = await openProjectDatabase(config);
  const outbox = createTraceOutbox(database);
  try {
    await outbox.levels();
  } catch (cause) {
    await database.close();
    throw new ServerError(
      "startup_failed",
      `The database at ${database.location} has no place for traces yet: run "aegra db migrate", or start the server once.`,
      { cause },
    );
  }
  // Whoever has not prolonged its lease since the first look may be gone.
  const leases = new Map<string, string>();
  const split = (queue: string): { target: string; stream: string } => {
    const [target = queue, stream = ""] = queue.split("/");
    return { target, stream };
  };
  return {
    place: `the database ${database.location}`,
    async status() {
      const reports = await outbox.report();
      return reports.map(({ queue, records, bytes, held, oldest_ms: age, dead_letters: dead }) => ({
        ...split(queue),
        records,
        bytes,
        oldest: records === 0 ? undefined : Date.now() - age,
        owners: [
          { records: held, whose: "in the hands of processes that live" },
          {
            records: records - held,
            whose: 'of nobody: any server, or "aegra traces flush", sends them',
          },
        ].filter((owner) => owner.records > 0),
        dead_letters: dead,
      }));
    },
    async deadLetters() {
      const letters = await outbox.deadLetters();
      return letters.map(({ queue, trace_id, bytes, buried_at, answer }) => ({
        ...split(queue),
        trace_id,
        bytes,
        buried_at: buried_at.toISOString(),
        answer,
      }));
    },
    replay: () => outbox.replay(),
    async left() {
      const holders = await outbox.holders();
      const ours = holders.filter(({ sender_id: id, lease }) => {
        if (id === null || lease === null) return true;
        const before = leases.get(id) ?? lease;
        leases.set(id, before);
        return before === lease;
      });
      return ours.reduce((total, { records }) => total + records, 0);
    },
    outbox,
    superseded: (roots) => outbox.superseded(roots),
    problem: () => undefined,
    close: () => database.close(),
  };
}
