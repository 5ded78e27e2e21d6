import { expect, test } from "vitest";
import type { ObservedRun } from "../observer.ts";
import {
  createCut,
  isSampled,
  attemptSpanIdOf,
  metadataOf,
  rootSpanIdOf,
  tagsOf,
  traceIdOf,
} from "./identity.ts";

const run: ObservedRun = {
  run_id: "0199AAAA-0000-7000-8000-000000000001",
  thread_id: "t1",
  session_id: "t1",
  user_id: "alice",
  graph_id: "agent",
  assistant_id: "a1",
  assistant_name: "Agent",
  assistant_version: 2,
  attempt: 1,
  trigger: "cron",
  tags: [],
  metadata: {},
  input: undefined,
  checkpoint_id: "c1",
  resumed_from: "r0",
  created_at: new Date(1_000),
  started_at: new Date(1_250),
  traceparent: undefined,
};
const cut = createCut(() => {});

test("trace and root ids can be computed by anyone who knows the run id", () => {
  expect(traceIdOf(run.run_id)).toBe("0199aaaa000070008000000000000001");
  expect(traceIdOf("job-7")).toMatch(/^[0-9a-f]{32}$/);
  expect(traceIdOf("00000000-0000-0000-0000-000000000000")).not.toMatch(/^0+$/);
  expect(rootSpanIdOf("abc")).toBe("ba7816bf8f01cfea");
  expect(attemptSpanIdOf("abc", 1)).not.toBe(attemptSpanIdOf("abc", 2));
});

test("the four tags, then graph, assistant, trigger, then the client's own", () => {
  expect(tagsOf({ ...run, tags: ["vip", "vip", "", "USER:eve", "aegra_run"] }, cut)).toEqual([
    "aegra_run",
    `run:${run.run_id}`,
    "thread:t1",
    "user:alice",
    "graph:agent",
    "assistant:a1",
    "trigger:cron",
    "vip",
    "client:USER:eve",
    "client:aegra_run",
  ]);
  expect(tagsOf({ ...run, user_id: undefined }, cut).some((tag) => tag.startsWith("user:"))).toBe(
    false,
  );
});

test("metadata: the client adds, the server's stays", () => {
  const metadata = metadataOf(
    { ...run, metadata: { run_id: "x", Attempt: 9, langgraph_step: 3, mine: 1 } },
    cut,
  );
  expect(metadata).toEqual({
    "client.run_id": "x",
    Attempt: 9,
    "client.langgraph_step": 3,
    mine: 1,
    run_id: run.run_id,
    thread_id: "t1",
    graph_id: "agent",
    assistant_id: "a1",
    assistant_version: 2,
    attempt: 1,
    trigger: "cron",
    queue_wait_ms: 250,
    checkpoint_id: "c1",
    resumed_from: "r0",
  });
});

test("cut texts keep their difference", () => {
  const heard: string[] = [];
  const noisy = createCut((what) => heard.push(what));
  const left = noisy.text(`${"x".repeat(300)}1`, 200);
  const right = noisy.text(`${"x".repeat(300)}2`, 200);
  expect(left).toHaveLength(200);
  expect(left).not.toBe(right);
  expect(heard).toHaveLength(2);
  expect(noisy.text("short", 200)).toBe("short");
});

test("sampling knows all, none and the same answer twice", () => {
  expect(isSampled("a", 1)).toBe(true);
  expect(isSampled("a", 0)).toBe(false);
  for (const id of ["a", "b", "c"]) expect(isSampled(id, 0.5)).toBe(isSampled(id, 0.5));
});
