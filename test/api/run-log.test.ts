import { StateGraph } from "@langchain/langgraph";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { systemAssistantId } from "../../src/engine/new-run.ts";
import { createLogCapture, type LogLine } from "../langfuse/harness.ts";
import { createTestDatabases } from "../support/databases.ts";
import { Trail, bottomless, createGate, failing, five, registryOf } from "../support/graphs.ts";
import { eventually, request, startServer, type TestServer } from "../support/server.ts";

/** A graph whose nodes, side by side, throw these. */
function throwing(...thrown: unknown[]) {
  const graph = new StateGraph(Trail);
  for (const [index, value] of thrown.entries()) {
    const name = `node${index}`;
    const throws = async (): Promise<never> => {
      throw value;
    };
    (graph as StateGraph<typeof Trail.spec, object, object, string>)
      .addNode(name, throws)
      .addEdge("__start__", name);
  }
  return graph.compile();
}

function connect(): never {
  throw new RangeError("no model for that");
}

const refusedByModel = Object.assign(new Error("401 from the model"), {
  request: { headers: { authorization: "Bearer sk-secret" } },
});

describe("what the log tells of a run that failed", () => {
  const databases = createTestDatabases("pglite");
  const capture = createLogCapture();
  const gate = createGate();
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(
      databases,
      registryOf({
        failing,
        five,
        bottomless,
        gate: gate.graph,
        refused: throwing(refusedByModel),
        caused: throwing(new Error("outside", { cause: new TypeError("inside") })),
        several: throwing(new Error("left"), new TypeError("right")),
        factory: () => connect(),
      }),
      { log: capture.log },
    );
  });
  beforeEach(() => void capture.lines.splice(0));

  /** The lines of a run that has ended, from `warn` up. */
  const warnings = async (graph: string): Promise<LogLine[]> => {
    await server.client.runs.wait(null, graph, { input: { input: "x" }, raiseError: false });
    await eventually(() => expect(capture.lines.map(({ msg }) => msg)).toContain("run"));
    return capture.lines.filter(({ level }) => level >= 40);
  };

  it("is where it was thrown, once, with the run's ids", async () => {
    const lines = await warnings("failing");
    expect(lines).toMatchObject([
      {
        level: 40,
        msg: "run failed",
        run_id: expect.any(String),
        err: {
          type: "TypeError",
          message: "The second node is broken",
          stack: expect.stringMatching(/^TypeError: The second node is broken\n[^]*graphs\.ts:\d+/),
        },
      },
    ]);
    const told = capture.lines.find(({ msg }) => msg === "run");
    expect(told).toMatchObject({ level: 30, status: "error", error: "The second node is broken" });
  });

  it("has what was behind the error, and each of several", async () => {
    const [caused] = await warnings("caused");
    expect(caused!.err!.stack).toMatch(/^Error: outside\n[^]*\ncaused by: TypeError: inside\n/);
    capture.lines.splice(0);
    const [several] = await warnings("several");
    expect(several!.err!.stack).toMatch(/\ncaused by: Error: left\n/);
    expect(several!.err!.stack).toMatch(/\ncaused by: TypeError: right\n/);
  });

  it("has nothing of what an error carries besides: requests have credentials", async () => {
    const [line] = await warnings("refused");
    expect(Object.keys(line!.err!)).toEqual(["type", "message", "stack"]);
    expect(JSON.stringify(capture.lines)).not.toContain("sk-secret");
  });

  it("is there for a result that cannot be stored", async () => {
    expect(await warnings("bottomless")).toMatchObject([
      { level: 40, msg: "run failed", err: { type: "ServerError", message: expect.any(String) } },
    ]);
  });

  it("is nothing for a run that ended well, or was cancelled", async () => {
    expect(await warnings("five")).toEqual([]);
    capture.lines.splice(0);
    const { thread_id: threadId } = await server.client.threads.create();
    const { run_id: runId } = await server.client.runs.create(threadId, "gate", {
      input: { input: "x" },
    });
    await gate.entered;
    await server.client.runs.cancel(threadId, runId, true);
    await eventually(() => expect(capture.lines.map(({ msg }) => msg)).toContain("run"));
    expect(capture.lines.filter(({ level }) => level >= 40)).toEqual([]);
  });

  it("is where a factory threw, for a run and for a request, once for each", async () => {
    const stack = expect.stringMatching(
      /RangeError: no model for that\n\s+at connect .*run-log\.test/,
    );
    expect(await warnings("factory")).toMatchObject([
      { msg: "run failed", err: { type: "ServerError", stack } },
    ]);
    capture.lines.splice(0);
    const answer = await request(server.url, "/assistants/factory/graph");
    expect(answer.json).toMatchObject({ code: "graph_unavailable" });
    expect(answer.status).toBe(503);
    expect(capture.lines.filter(({ level }) => level >= 40)).toMatchObject([
      {
        level: 40,
        msg: "a graph could not be built",
        request_id: answer.headers.get("x-request-id"),
        err: { type: "RangeError", message: "no model for that", stack },
      },
    ]);
  });

  it("is why an assistant is no tool of MCP; the others are", async () => {
    const answer = await request(server.url, "/mcp", {
      headers: { "content-type": "application/json" },
      json: { jsonrpc: "2.0", id: 1, method: "tools/list" },
    });
    const { tools } = (answer.json as { result: { tools: { name: string }[] } }).result;
    expect(tools.map(({ name }) => name).toSorted()).toEqual([
      "bottomless",
      "caused",
      "failing",
      "five",
      "gate",
      "refused",
      "several",
    ]);
    expect(capture.lines.filter(({ level }) => level >= 40)).toMatchObject([
      {
        level: 40,
        msg: "a graph could not be built",
        request_id: answer.headers.get("x-request-id"),
        assistant_id: systemAssistantId("factory"),
        err: { type: "RangeError", message: "no model for that" },
      },
    ]);
  });
});
