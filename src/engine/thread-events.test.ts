import { describe, expect, it } from "vitest";
import type { ThreadEvent } from "../protocol/events.ts";
import type { RunEvent } from "../protocol/runs.ts";
import type { RunRecord } from "../storage/run-record.ts";
import { toModeEvents } from "./mode-events.ts";
import { fromEventName, fromProtocolEvent } from "./protocol-events.ts";
import { isWanted, seqOf, toThreadEvents, toWire } from "./thread-events.ts";
import { ENDED, placeBefore, placeOf } from "./thread-stream.ts";

const run = {
  run_id: "01a214f7-8fd4-7000-8000-000000000001",
  graph_id: "agent",
  stream_position: 3,
  attempt: 1,
  status: "running",
  interrupted: false,
  started_at: new Date(1_000),
  created_at: new Date(500),
  ended_at: null,
  kwargs: { protocol: "v2", stream_mode: ["values"], config: {} },
} as unknown as RunRecord;

const event = (channel: string, namespace: string[] = []): ThreadEvent => ({
  seq: 1,
  event_id: "1",
  method: channel.startsWith("custom:") ? "custom" : channel,
  channel,
  namespace,
  params: "{}",
});

describe("a place in a thread's stream", () => {
  it("is in order along runs, and a safe integer to the last", () => {
    expect(placeBefore(3)).toBe(placeOf({ stream_position: 2 }, ENDED));
    expect(placeOf(run, 0)).toBe(placeBefore(3) + 1);
    expect(Number.isSafeInteger(placeOf({ stream_position: 9_007_198 }, ENDED))).toBe(true);
  });

  it("is read from an event id", () => {
    expect(seqOf("3000000007")).toBe(3_000_000_007);
    expect(seqOf(`synth:${run.run_id}:3999999999`)).toBe(3_999_999_999);
    expect(seqOf("msg-1")).toBeUndefined();
  });
});

describe("a subscription", () => {
  it("wants its channels", () => {
    expect(isWanted(event("values"), { channels: ["values"] })).toBe(true);
    expect(isWanted(event("updates"), { channels: ["values"] })).toBe(false);
    expect(isWanted(event("custom:a"), { channels: ["custom"] })).toBe(true);
    expect(isWanted(event("custom:a"), { channels: ["custom:a"] })).toBe(true);
    expect(isWanted(event("custom:b"), { channels: ["custom:a"] })).toBe(false);
    expect(isWanted(event("custom"), { channels: ["custom:a"] })).toBe(false);
  });

  it("wants its places in the tree, to its depth", () => {
    const channels = ["values" as const];
    const at = (...namespace: string[]): ThreadEvent => event("values", namespace);
    expect(isWanted(at("a:1"), { channels, namespaces: [["a"]] })).toBe(true);
    expect(isWanted(at("a:1"), { channels, namespaces: [["a:2"]] })).toBe(false);
    expect(isWanted(at(), { channels, namespaces: [["a"]] })).toBe(false);
    expect(isWanted(at(), { channels, namespaces: [] })).toBe(true);
    expect(isWanted(at("a:1"), { channels, namespaces: [[]], depth: 0 })).toBe(false);
    expect(isWanted(at("a:1", "b:2"), { channels, namespaces: [["a"]], depth: 1 })).toBe(true);
    expect(isWanted(at("a:1", "b:2"), { channels, namespaces: [[]], depth: 1 })).toBe(false);
  });
});

describe("an event of a graph", () => {
  const told = (method: string, data: unknown, node?: string) =>
    fromProtocolEvent(
      { method, params: { namespace: ["a:1"], timestamp: 5, data, ...(node && { node }) } },
      new Set(["known"]),
    );

  it("is kept under its channel and place", () => {
    expect(told("values", { x: 1 })).toEqual([
      { event: "values|a:1", data: { namespace: ["a:1"], timestamp: 5, data: { x: 1 } } },
    ]);
    const [odd] = told("custom", { name: "a|b %", payload: 1 });
    expect(fromEventName(odd!.event)).toEqual({ channel: "custom:a|b %", namespace: ["a:1"] });
    const [own] = told("custom:own", [1]);
    expect(own!.data).toMatchObject({ data: { name: "own", payload: [1] } });
  });

  it("asks each question once, whichever way it is told", () => {
    const questions = [{ id: "known" }, { id: "q", value: "Sure?" }];
    const expected = [
      {
        event: "input.requested|a:1",
        data: {
          namespace: ["a:1"],
          timestamp: 5,
          data: { interrupt_id: "q", payload: "Sure?" },
        },
      },
    ];
    expect(told("values", { __interrupt__: questions })).toEqual(expected);
    expect(told("updates", { node: "__interrupt__", values: questions }, "__interrupt__")).toEqual(
      expected,
    );
    expect(told("values", { __interrupt__: questions, x: 1 }).map((part) => part.event)).toEqual([
      "input.requested|a:1",
      "values|a:1",
    ]);
  });

  it("says nothing of how the root stands", () => {
    const lifecycle = { method: "lifecycle", params: { namespace: [], timestamp: 5, data: {} } };
    expect(fromProtocolEvent(lifecycle, new Set())).toEqual([]);
    expect(told("lifecycle", { event: "started" })).toHaveLength(1);
  });
});

describe("a run in a thread's stream", () => {
  const kept: RunEvent[] = [
    { id: 0, event: "metadata", data: '{"run_id":"r","attempt":1}' },
    {
      id: 1,
      event: "custom:p%7C|a:1",
      data: '{"namespace":["a:1"],"timestamp":5,"data":{"name":"p|","payload":1}}',
    },
    { id: 10_000_000, event: "metadata", data: '{"run_id":"r","attempt":2}' },
    { id: 10_000_001, event: "error", data: '{"error":"Error","message":"no"}' },
  ];

  it("goes out as it was kept, with its place", () => {
    const events = toThreadEvents({ kind: "events", run, events: kept }, JSON.stringify);
    expect(events.map((told) => JSON.parse(toWire(told)) as object)).toMatchObject([
      {
        type: "event",
        seq: 3_000_000_003,
        event_id: "3000000003",
        method: "custom",
        params: { namespace: ["a:1"], timestamp: 5, data: { name: "p|", payload: 1 } },
      },
      {
        seq: 3_010_000_002,
        method: "lifecycle",
        params: { data: { event: "running", attempt: 2 } },
      },
    ]);
  });

  it("begins and ends with how it stands, told by its row", () => {
    const command = { resume: { ["0".repeat(32)]: "yes" } };
    const answering = { ...run, kwargs: { ...run.kwargs, command } } as RunRecord;
    const started = toThreadEvents({ kind: "started", run: answering }, JSON.stringify);
    expect(started.map(({ method, seq }) => [method, seq])).toEqual([
      ["lifecycle", 3_000_000_000],
      ["input.answered", 3_000_000_001],
    ]);
    const end = (changes: Partial<RunRecord> | undefined): string => {
      const last = changes && ({ ...run, ended_at: new Date(9_000), ...changes } as RunRecord);
      const told = toThreadEvents({ kind: "ended", run, last, found: true }, JSON.stringify);
      expect(told).toHaveLength(1);
      expect(told[0]!.event_id).toBe(`synth:${run.run_id}:3999999999`);
      return (JSON.parse(told[0]!.params) as { data: { event: string } }).data.event;
    };
    expect(end({ status: "success" })).toBe("completed");
    expect(end({ status: "success", interrupted: true })).toBe("interrupted");
    expect(end({ status: "interrupted" })).toBe("interrupted");
    expect(end({ status: "error" })).toBe("failed");
    expect(end({ status: "timeout" })).toBe("failed");
    expect(end(undefined)).toBe("interrupted");
  });

  it("is read by the first API in the words of stream modes", () => {
    const params = (data: unknown) => JSON.stringify({ namespace: [], timestamp: 5, data });
    const told = toModeEvents([
      kept[0]!,
      { id: 1, event: "updates", data: params({ node: "n", values: { x: 1 } }) },
      { id: 2, event: "custom", data: params({ payload: "p" }) },
      { id: 3, event: "input.requested", data: params({ interrupt_id: "q", payload: 1 }) },
      { id: 4, event: "messages", data: params({ event: "message-start" }) },
    ]);
    expect(told.map(({ id, event: name, data }) => [id, name, JSON.parse(data)])).toEqual([
      [0, "metadata", { run_id: "r", attempt: 1 }],
      [1, "updates", { n: { x: 1 } }],
      [2, "custom", "p"],
      [3, "values", { __interrupt__: [{ id: "q", value: 1 }] }],
    ]);
  });
});
