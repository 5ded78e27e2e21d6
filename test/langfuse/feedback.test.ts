import { afterAll, beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { approval, createGate, failing, five, registryOf } from "../support/graphs.ts";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";
import { startServer, testConfig, type TestServer } from "../support/server.ts";

const traceId = (runId: string): string => runId.replaceAll("-", "");

describeDatabases("feedback", (databases) => {
  const gate = createGate();
  const graphs = registryOf({ five, approval, failing, gate: gate.graph });
  let langfuse: LangfuseReceiver;
  let on: TestServer;
  let off: TestServer;

  beforeAll(async () => {
    langfuse = await openLangfuseReceiver();
    const place = { databaseUrl: undefined, dataDir: "" };
    on = await startServer(databases, graphs, {
      config: {
        langfuse: {
          ...testConfig(place).langfuse,
          enabled: true,
          publicKey: langfuse.publicKey,
          secretKey: langfuse.secretKey,
          host: langfuse.url,
        },
      },
    });
    off = await startServer(databases, graphs);
  });
  afterAll(() => langfuse.close());

  const send = async (url: string, body: unknown) => {
    const answer = await fetch(url, { method: "POST", body: JSON.stringify(body) });
    return { status: answer.status, json: (await answer.json()) as Record<string, unknown> };
  };
  const scoresOf = (runId: string) =>
    langfuse.scores.filter((score) => score.traceId === traceId(runId));
  const finishedRun = async (graph = "five") => {
    const thread = await on.client.threads.create();
    const run = await on.client.runs.create(thread.thread_id, graph, { input: { input: "x" } });
    await on.client.runs.join(thread.thread_id, run.run_id);
    return run.run_id;
  };

  it("turns a number, a boolean and a category into scores on the run's trace", async () => {
    const runId = await finishedRun();
    const url = `${on.url}/runs/${runId}/feedback`;
    expect((await send(url, { key: "stars", score: 4.5, comment: "good" })).status).toBe(200);
    expect((await send(url, { key: "helpful", score: true })).status).toBe(200);
    expect((await send(url, { key: "tone", value: "friendly" })).status).toBe(200);
    await langfuse.until(() => scoresOf(runId).length === 3);
    const byName = Object.fromEntries(scoresOf(runId).map((score) => [score.name, score]));
    expect(byName["stars"]).toMatchObject({ value: 4.5, dataType: "NUMERIC", comment: "good" });
    expect(byName["helpful"]).toMatchObject({ value: 1, dataType: "BOOLEAN" });
    expect(byName["tone"]).toMatchObject({ value: "friendly", dataType: "CATEGORICAL" });
  });

  it("replaces a judgement with the same id, of this run only", async () => {
    const [first, second] = [await finishedRun(), await finishedRun()];
    const judge = (runId: string, score: number) =>
      send(`${on.url}/runs/${runId}/feedback`, { key: "stars", score, id: "one" });
    const ids = [await judge(first, 1), await judge(first, 5), await judge(second, 3)].map(
      ({ json }) => json["id"],
    );
    expect(ids[0]).toBe(ids[1]);
    expect(ids[2]).not.toBe(ids[0]);
    // The receiver keeps scores by id, as Langfuse does.
    await langfuse.until(() => scoresOf(first)[0]?.value === 5 && scoresOf(second).length === 1);
    expect(scoresOf(first)).toHaveLength(1);
  });

  it("judges a run that is still running", async () => {
    const thread = await on.client.threads.create();
    const run = await on.client.runs.create(thread.thread_id, "gate", { input: { input: "x" } });
    await gate.entered;
    const { status } = await send(`${on.url}/runs/${run.run_id}/feedback`, {
      key: "early",
      score: 1,
    });
    expect(status).toBe(200);
    gate.release();
    await langfuse.until(() => scoresOf(run.run_id).length === 1);
  });

  it("ends a stream with a signed link for each key", async () => {
    const thread = await on.client.threads.create();
    const parts: { event: string; data: unknown }[] = [];
    for await (const part of on.client.runs.stream(thread.thread_id, "five", {
      input: { input: "x" },
      feedbackKeys: ["helpful", "stars"],
    })) {
      parts.push(part);
    }
    expect(parts.at(-1)!.event).toBe("feedback");
    const links = parts.at(-1)!.data as Record<string, string>;
    expect(Object.keys(links)).toEqual(["helpful", "stars"]);
    expect(links["helpful"]).toContain(`${on.url}/feedback/`);
    const { run_id: runId } = parts[0]!.data as { run_id: string };

    expect((await send(links["helpful"]!, { score: true })).status).toBe(200);
    expect((await send(links["helpful"]!, { score: false })).status).toBe(200);
    await langfuse.until(() => scoresOf(runId)[0]?.value === 0);
    expect(scoresOf(runId)).toMatchObject([{ name: "helpful", dataType: "BOOLEAN" }]);

    const forged = links["helpful"]!.replace(/.$/u, (last) => (last === "A" ? "B" : "A"));
    expect((await send(forged, { score: true })).status).toBe(403);
    expect((await send(links["stars"]!, { key: "other", score: true })).status).toBe(422);
    expect((await send(links["stars"]!, {})).status).toBe(422);
  });

  it("says what is wrong with a judgement", async () => {
    const runId = await finishedRun();
    const url = `${on.url}/runs/${runId}/feedback`;
    const cases: [unknown, string][] = [
      [{ score: 1 }, "key"],
      [{ key: " ", score: 1 }, "key"],
      [{ key: "x" }, "score"],
      [{ key: "x", score: "high" }, "score"],
      [{ key: "x", score: 1, value: "a" }, "score"],
      [{ key: "x", value: {} }, "value"],
      [{ key: "x", score: 1, stars: 5 }, "stars"],
    ];
    for (const [body, field] of cases) {
      const { status, json } = await send(url, body);
      expect(status).toBe(422);
      expect(json["detail"]).toContain(field);
    }
    const unknown = `${on.url}/runs/00000000-0000-4000-8000-000000000000/feedback`;
    expect((await send(unknown, { key: "x", score: 1 })).status).toBe(404);
  });

  it("refuses with 409, and says why, while tracing is off", async () => {
    const run = await off.client.runs.create(null, "five", { input: { input: "x" } });
    const { status, json } = await send(`${off.url}/runs/${run.run_id}/feedback`, {
      key: "x",
      score: 1,
    });
    expect(status).toBe(409);
    expect(json["detail"]).toContain("LANGFUSE_LOGGING");
    const asked = await send(`${off.url}/runs`, { assistant_id: "five", feedback_keys: ["x"] });
    expect(asked.status).toBe(409);
  });
});
