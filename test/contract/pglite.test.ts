import { mkdir, mkdtemp, readFile, readdir, rm, stat, utimes, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { acquireFolderLock } from "../../src/storage/pglite-lock.ts";
import { PgliteThread } from "../../src/storage/pglite-thread.ts";
import { openPglite, PGLITE_POSTGRES_MAJOR } from "../../src/storage/pglite.ts";
import type { PgliteDatabase } from "../../src/storage/pglite.ts";
import { startChild } from "../support/children.ts";
import type { Child } from "../support/children.ts";

const folders: string[] = [];
const children: Child[] = [];

async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "aegra-test-"));
  folders.push(folder);
  return folder;
}

function start(source: string): Child {
  const child = startChild(source);
  children.push(child);
  return child;
}

afterEach(async () => {
  for (const child of children.splice(0)) await child.kill();
});
afterAll(async () => {
  for (const folder of folders) await rm(folder, { recursive: true, force: true });
});

const opener = (folder: string): string => `
  import { openPglite } from "./dist/storage/pglite.js";
  const database = await openPglite({ dataDir: ${JSON.stringify(folder)} }).catch((error) => {
    console.log("refused: " + error.message);
    process.exit();
  });
  console.log("open");
`;

/** Takes the lock, then changes the claim into another process's. */
async function forge(folder: string, change: object): Promise<string> {
  await acquireFolderLock(folder);
  const claims = join(folder, "claims");
  const path = join(claims, (await readdir(claims))[0] ?? "");
  const claim = JSON.parse(await readFile(path, "utf8")) as object;
  await writeFile(path, JSON.stringify({ ...claim, ...change }));
  return path;
}

describe("the folder's lock", () => {
  test("refuses a second process, and names the first", async () => {
    const folder = await newFolder();
    const child = start(opener(folder));
    expect(await child.readLine()).toBe("open");
    const refused = openPglite({ dataDir: folder });
    await expect(refused).rejects.toMatchObject({
      code: "startup_failed",
      details: { pid: child.pid },
    });
    await expect(refused).rejects.toThrow(`in use by another process (pid ${child.pid})`);
  });

  test("refuses the same process twice, until the first has closed", async () => {
    const folder = await newFolder();
    const first = await openPglite({ dataDir: folder });
    await expect(openPglite({ dataDir: folder })).rejects.toThrow(
      `this process (pid ${process.pid})`,
    );
    const child = start(opener(folder));
    expect(await child.readLine()).toContain(`refused: The database in ${folder} is in use`);
    await first.close();
    const second = await openPglite({ dataDir: folder });
    await second.close();
    expect(await readdir(join(folder, "claims"))).toEqual([]);
  });

  test("is taken over from a process that was killed", async () => {
    const folder = await newFolder();
    const child = start(opener(folder));
    expect(await child.readLine()).toBe("open");
    await child.kill();
    expect(await readdir(join(folder, "claims"))).toHaveLength(1);
    const database = await openPglite({ dataDir: folder });
    await database.close();
  });

  test("is had by one of eight that start at once", async () => {
    const folder = await newFolder();
    const racers = Array.from({ length: 8 }, () =>
      start(`
        import { acquireFolderLock } from "./dist/storage/pglite-lock.js";
        process.stdin.resume();
        console.log(await acquireFolderLock(${JSON.stringify(folder)}).then(() => "held", (error) => error.message));
      `),
    );
    const outcomes = await Promise.all(racers.map((racer) => racer.readLine()));
    const winners = racers.filter((_, index) => outcomes[index] === "held");
    expect(winners).toHaveLength(1);
    const losers = outcomes.filter((outcome) => outcome !== "held");
    for (const outcome of losers) expect(outcome).toContain(`(pid ${winners[0]?.pid})`);
  });

  test("is not fooled by a pid that was given to another process", async () => {
    const folder = await newFolder();
    const bystander = start("setInterval(() => {}, 1000); console.log('running')");
    await bystander.readLine();
    await forge(folder, { pid: bystander.pid, startedAt: "1" });
    const lock = await acquireFolderLock(folder);
    await lock.release();
  });

  test("is not fooled by a pid from before a reboot", async () => {
    const folder = await newFolder();
    await forge(folder, { bootId: "another boot" });
    const lock = await acquireFolderLock(folder);
    await lock.release();
  });

  test("is held by another host as long as that gives signs of life", async () => {
    const folder = await newFolder();
    const path = await forge(folder, { host: `not-${hostname()}`, bootId: "another boot" });
    const heartbeat = setInterval(() => void utimes(path, new Date(), new Date()), 100);
    try {
      await expect(acquireFolderLock(folder)).rejects.toThrow(`on host not-${hostname()}`);
    } finally {
      clearInterval(heartbeat);
    }
  });

  test("is taken over from another host that has gone silent", async () => {
    const folder = await newFolder();
    const path = await forge(folder, { host: `not-${hostname()}`, bootId: "another boot" });
    // The forger's own process is alive and would touch its claim: take its place in another folder.
    const elsewhere = await newFolder();
    const text = await readFile(path, "utf8");
    await acquireFolderLock(elsewhere).then((lock) => lock.release());
    await writeFile(join(elsewhere, "claims", "silent.json"), text);
    const lock = await acquireFolderLock(elsewhere, { silenceMs: 1_000 });
    await lock.release();
  });

  test("says which file cannot be read", async () => {
    const folder = await newFolder();
    await acquireFolderLock(folder).then((lock) => lock.release());
    await writeFile(join(folder, "claims", "broken.json"), "{");
    await expect(acquireFolderLock(folder)).rejects.toThrow("broken.json cannot be read");
  });
});

describe("the folder", () => {
  test("keeps every acknowledged row of a process that is killed while it writes", async () => {
    const folder = await newFolder();
    let acknowledged = 0;
    for (let round = 0; round < 3; round += 1) {
      const child = start(`${opener(folder)}
        await database.query("CREATE TABLE IF NOT EXISTS rows (id int PRIMARY KEY, text text)");
        for (let id = ${acknowledged + 1}; ; id += 1) {
          await database.transaction(async (tx) => {
            await tx.query("INSERT INTO rows VALUES ($1, $2)", [id, "x".repeat(1000)]);
          });
          console.log(id);
        }
      `);
      expect(await child.readLine()).toBe("open");
      const target = acknowledged + 100 + round * 50;
      while (acknowledged < target) acknowledged = Number(await child.readLine());
      await child.kill();
      for (let line = await child.readLine(); line !== undefined; line = await child.readLine()) {
        acknowledged = Number(line);
      }
      const database = await openPglite({ dataDir: folder });
      const { rows } = await database.query<{ id: number }>("SELECT id FROM rows ORDER BY id");
      await database.close();
      expect(rows.slice(0, acknowledged).map(({ id }) => id)).toEqual(
        Array.from({ length: acknowledged }, (_, index) => index + 1),
      );
      // One more may have been committed that the child could not report.
      acknowledged = rows.length;
    }
  });

  test("starts anew where the first start was interrupted", async () => {
    const folder = await newFolder();
    await mkdir(join(folder, "files"));
    await writeFile(join(folder, "files", "PG_VERSION"), `${PGLITE_POSTGRES_MAJOR}\n`);
    const database = await openPglite({ dataDir: folder });
    expect((await database.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    await database.close();
  });

  test.each(["version.json", "files/PG_VERSION"])(
    "of another major in %s is refused",
    async (file) => {
      const folder = await newFolder();
      await mkdir(join(folder, "files"));
      await writeFile(join(folder, "files/PG_VERSION"), `${PGLITE_POSTGRES_MAJOR}\n`);
      await writeFile(
        join(folder, "version.json"),
        JSON.stringify({ postgres: PGLITE_POSTGRES_MAJOR }),
      );
      const other = PGLITE_POSTGRES_MAJOR - 1;
      await writeFile(
        join(folder, file),
        file.endsWith(".json") ? JSON.stringify({ postgres: other }) : `${other}\n`,
      );
      const refused = openPglite({ dataDir: folder });
      await expect(refused).rejects.toMatchObject({ code: "startup_failed" });
      await expect(refused).rejects.toThrow(`written by PostgreSQL ${other}`);
      // A refusal does not keep the folder.
      expect(await readdir(join(folder, "claims"))).toEqual([]);
    },
  );

  test("that cannot be made is refused", async () => {
    const file = join(await newFolder(), "file");
    await writeFile(file, "");
    await expect(openPglite({ dataDir: join(file, "data") })).rejects.toMatchObject({
      code: "startup_failed",
    });
  });

  test("is given back when the database does not start", async () => {
    const folder = await newFolder();
    const template = join(folder, "not-a-template.tar.gz");
    await writeFile(template, "not a template");
    const failing = openPglite({ dataDir: folder, template });
    await expect(failing).rejects.toMatchObject({ code: "startup_failed" });
    await expect(failing).rejects.toThrow(`database in ${folder} does not start`);
    const database = await openPglite({ dataDir: folder });
    await database.close();
  });

  test("can be made without a template", async () => {
    const files = join(await newFolder(), "files");
    const thread = await PgliteThread.start({ dataDir: files, template: undefined });
    await thread.close();
    expect((await stat(join(files, "PG_VERSION"))).isFile()).toBe(true);
  });
});

describe("PGlite", () => {
  let database: PgliteDatabase;
  beforeAll(async () => {
    database = await openPglite({ dataDir: "memory://" });
    return () => database.close();
  });

  test("is the major it says, with little memory", async () => {
    const { rows } = await database.query(
      "SELECT current_setting('server_version_num') AS version, current_setting('shared_buffers') AS buffers",
    );
    expect(rows).toEqual([
      { version: expect.stringMatching(`^${PGLITE_POSTGRES_MAJOR}`) as string, buffers: "16MB" },
    ]);
    expect([database.kind, database.location]).toEqual(["pglite", "memory"]);
  });

  test("has vectors", async () => {
    await database.query("CREATE EXTENSION IF NOT EXISTS vector");
    const { rows } = await database.query("SELECT $1::vector <-> $2::vector AS distance", [
      "[0,0]",
      "[3,4]",
    ]);
    expect(rows).toEqual([{ distance: 5 }]);
  });

  test("leaves this thread free while it computes", async () => {
    let turns = 0;
    let running = true;
    const turn = (): void => {
      turns += 1;
      if (running) setImmediate(turn);
    };
    turn();
    await database.query("SELECT sum(sqrt(n)) FROM generate_series(1, 1000000) AS n");
    running = false;
    expect(turns).toBeGreaterThan(100);
  });

  test("rolls back for a connection that is dropped in a transaction, and serves the others", async () => {
    await database.query("CREATE TABLE dropped (id int)");
    const client = await database.pool.connect();
    await client.query("BEGIN");
    await client.query("INSERT INTO dropped VALUES (1)");
    const waiting = database.query("SELECT count(*) AS rows FROM dropped");
    client.release(true);
    expect((await waiting).rows).toEqual([{ rows: 0 }]);
  });

  test("that dies rejects every call, says so, and gives its folder back", async () => {
    const folder = await newFolder();
    const logged: string[] = [];
    const dying = await openPglite({
      dataDir: folder,
      log: (level, message) => logged.push(`${level}: ${message}`),
    });
    await dying.query("CREATE TABLE kept AS SELECT 'kept' AS text");
    // PGlite has no way to read what COPY asks for, and exits.
    const fatal = dying.query("COPY kept FROM STDIN");
    const waiting = dying.query("SELECT pg_sleep(0.1)").catch(() => {});
    await expect(fatal).rejects.toThrow("restart the server");
    await waiting;
    await expect(dying.pool.query("SELECT 1")).rejects.toThrow("restart the server");
    await expect(dying.transaction((tx) => tx.query("SELECT 1"))).rejects.toThrow("restart");
    await expect(dying.query("SELECT 1")).rejects.toMatchObject({ code: "unavailable" });
    expect(logged).toContain("warn: The embedded database has stopped.");
    await dying.close();
    const next = await openPglite({ dataDir: folder });
    expect((await next.query("SELECT text FROM kept")).rows).toEqual([{ text: "kept" }]);
    await next.close();
  });

  test("can be copied into a new database", async () => {
    const file = join(await newFolder(), "copy.tar.gz");
    await database.query("CREATE TABLE copied AS SELECT 'here' AS text");
    await database.dump(file);
    const copy = await openPglite({ dataDir: "memory://", template: file });
    expect((await copy.query("SELECT text FROM copied")).rows).toEqual([{ text: "here" }]);
    await copy.close();
    await expect(database.dump(join(file, "impossible"))).rejects.toThrow("could not be copied");
  });
});
