import type { StateSnapshot } from "@langchain/langgraph";
import { describe, expect, it } from "vitest";
import {
  emptyThreadState,
  pendingInterrupts,
  selectFields,
  toStateCheckpoint,
  toThreadState,
} from "./thread-state.ts";

const place = (checkpoint_id: string, checkpoint_ns = "") => ({
  configurable: { thread_id: "t", checkpoint_id, checkpoint_ns },
});

function snapshot(parts: Partial<Record<keyof StateSnapshot, unknown>> = {}): StateSnapshot {
  return {
    values: { a: 1 },
    next: [],
    tasks: [],
    config: place("2"),
    metadata: { source: "loop", step: 1 },
    createdAt: "2026-01-01T00:00:00.000Z",
    parentConfig: place("1"),
    ...parts,
  } as StateSnapshot;
}

const task = (parts: object) => ({
  id: "task",
  name: "ask",
  path: ["__pregel_pull", "ask"],
  interrupts: [],
  ...parts,
});

describe("a place in a thread's history", () => {
  it("is what a config says, and nothing where it says nothing", () => {
    expect(toStateCheckpoint(place("2", "child:1"))).toEqual({
      thread_id: "t",
      checkpoint_id: "2",
      checkpoint_ns: "child:1",
      checkpoint_map: null,
    });
    expect(
      toStateCheckpoint({ configurable: { thread_id: "t", checkpoint_map: { "": "1" } } }),
    ).toEqual({
      thread_id: "t",
      checkpoint_id: null,
      checkpoint_ns: "",
      checkpoint_map: { "": "1" },
    });
    for (const config of [undefined, null, "text", {}, { configurable: {} }])
      expect(toStateCheckpoint(config)).toBeNull();
  });
});

describe("a thread's state", () => {
  it("is the snapshot in the API's words", () => {
    expect(toThreadState(snapshot({ next: ["ask"], tasks: [task({})] }))).toEqual({
      values: { a: 1 },
      next: ["ask"],
      tasks: [
        {
          id: "task",
          name: "ask",
          path: ["__pregel_pull", "ask"],
          error: null,
          interrupts: [],
          checkpoint: null,
          state: null,
          result: null,
        },
      ],
      metadata: { source: "loop", step: 1 },
      created_at: "2026-01-01T00:00:00.000Z",
      checkpoint: { thread_id: "t", checkpoint_id: "2", checkpoint_ns: "", checkpoint_map: null },
      parent_checkpoint: {
        thread_id: "t",
        checkpoint_id: "1",
        checkpoint_ns: "",
        checkpoint_map: null,
      },
      interrupts: [],
    });
    expect(
      toThreadState(
        snapshot({
          values: undefined,
          createdAt: undefined,
          metadata: undefined,
          parentConfig: undefined,
        }),
      ),
    ).toMatchObject({ values: {}, created_at: null, metadata: null, parent_checkpoint: null });
  });

  it("shows a task's subgraph as its place, or whole where it was read", () => {
    const at = toThreadState(snapshot({ tasks: [task({ state: place("3", "child:1") })] }));
    expect(at.tasks[0]).toMatchObject({ state: null, checkpoint: { checkpoint_ns: "child:1" } });
    const inner = snapshot({ values: { b: 2 }, config: place("3", "child:1") });
    const whole = toThreadState(snapshot({ tasks: [task({ state: inner })] }));
    expect(whole.tasks[0]).toMatchObject({
      state: { values: { b: 2 } },
      checkpoint: { checkpoint_id: "3", checkpoint_ns: "child:1" },
    });
  });

  it("shows what went wrong in a task as a text", () => {
    for (const [error, shown] of [
      [new Error("Broken"), "Broken"],
      [{ name: "Error", message: "Broken" }, "Broken"],
      ["Broken", "Broken"],
      [{ code: 5 }, '{"code":5}'],
      [null, null],
    ] as const) {
      const [first] = toThreadState(snapshot({ tasks: [task({ error })] })).tasks;
      expect(first!.error).toBe(shown);
    }
  });

  it("asks what still waits, and not what was answered", () => {
    const tasks = [
      task({ id: "left", interrupts: [{ value: "Left?" }], result: { trail: ["left"] } }),
      task({ id: "right", interrupts: [{ value: "Right?" }] }),
      task({ id: "none" }),
    ];
    expect(pendingInterrupts(snapshot({ tasks }))).toEqual({ right: [{ value: "Right?" }] });
    expect(toThreadState(snapshot({ tasks })).interrupts).toEqual([{ value: "Right?" }]);
  });
});

describe("the fields of a state", () => {
  const state = { ...emptyThreadState(), values: { a: 1, "b.c": 2, d: undefined }, next: ["x"] };

  it("are all, without a choice", () => {
    expect(selectFields(state, undefined)).toBe(state);
    expect(selectFields(state, [])).toBe(state);
  });

  it("are those that were chosen, down to single values", () => {
    expect(selectFields(state, ["next"])).toEqual({ next: ["x"] });
    expect(selectFields(state, ["values.a", "values.b.c", "values.z"])).toEqual({
      values: { a: 1, "b.c": 2 },
    });
    expect(selectFields(state, ["values", "values.a"])).toEqual({ values: state.values });
    expect(selectFields({ ...state, values: null }, ["values.a"])).toEqual({ values: {} });
  });
});
