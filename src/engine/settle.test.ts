import { describe, expect, it } from "vitest";
import { ServerError } from "../errors.ts";
import { RunTimeout, type Execution, type Stop } from "./execute.ts";
import { settle, toStorable } from "./settle.ts";

const values = { trail: ["one"] };
const done: Execution = { values, interrupt: undefined, error: undefined };
const asked: Execution = {
  values,
  interrupt: { interrupts: { task: [{ id: "1", value: "Go on?" }] }, values: ["Go on?"] },
  error: undefined,
};
const failed: Execution = { values, interrupt: undefined, error: new RangeError("Too far") };
const stop = (kind: Exclude<Stop["kind"], "timeout">): Stop => ({ kind });

describe("settling a run", () => {
  it("takes the graph's own end for what it is", () => {
    expect(settle(done, undefined)).toEqual({
      result: {
        status: "success",
        interrupted: false,
        output: values,
        values,
        error: undefined,
        interrupts: {},
      },
      outcome: { status: "success", output: values },
    });
  });

  it("calls a run that asks a success, with its question in the output", () => {
    expect(settle(asked, undefined)).toEqual({
      result: {
        status: "success",
        interrupted: true,
        output: { ...values, __interrupt__: [{ id: "1", value: "Go on?" }] },
        values,
        error: undefined,
        interrupts: { task: [{ id: "1", value: "Go on?" }] },
      },
      outcome: { status: "interrupted", output: values, interrupts: ["Go on?"] },
    });
    const early = settle({ ...asked, values: undefined }, undefined);
    expect(early.result).toMatchObject({ output: { __interrupt__: [{ id: "1" }] } });
  });

  it("calls a run that took too long a timeout, which is an error of its thread", () => {
    const limit = new RunTimeout(1_500);
    const error = {
      error: "TimeoutError",
      message: "The run took longer than 1.5 s, which is the limit of this server.",
    };
    expect(settle(done, limit)).toEqual({
      result: {
        status: "timeout",
        interrupted: false,
        output: values,
        values,
        error,
        interrupts: undefined,
      },
      outcome: { status: "timeout", output: values, error: limit },
    });
  });

  it("leaves a thread as it was if the run was refused", () => {
    const interrupts = { task: [{ id: "1" }] };
    const refused = { ...failed, values: undefined, refused: { interrupts, waiting: true } };
    expect(settle(refused, undefined).result).toEqual({
      status: "error",
      interrupted: false,
      output: undefined,
      values: undefined,
      error: { error: "RangeError", message: "Too far" },
      interrupts,
      resting: "interrupted",
    });
    const idle = { ...refused, refused: { interrupts: {}, waiting: false } };
    expect(settle(idle, undefined).result).toMatchObject({ interrupts: {}, resting: "idle" });
  });

  it("keeps what a failed run reached, and shows no stack", () => {
    const { result, outcome } = settle(failed, undefined);
    expect(result).toMatchObject({
      status: "error",
      values,
      error: { error: "RangeError", message: "Too far" },
      interrupts: undefined,
    });
    expect(Object.keys(result!.error!)).toEqual(["error", "message"]);
    expect(outcome).toMatchObject({ status: "error", error: failed.error });
  });

  it("shows whatever was thrown", () => {
    const shown = (error: unknown) => settle({ ...done, error }, undefined).result?.error;
    expect(shown("A text")).toEqual({ error: "Error", message: "A text" });
    expect(shown({ a: 1 })).toEqual({
      error: "Error",
      message: "The graph threw a value that is not an error.",
    });
    expect(shown(new ServerError("graph_unavailable", "Not loaded"))).toMatchObject({
      message: "Not loaded",
    });
    const hostile = Object.defineProperty(new Error("x"), "message", {
      get() {
        throw new Error("A getter");
      },
    });
    expect(shown(hostile)).toMatchObject({ error: "Error" });
    expect(shown(Object.assign(new Error("Nameless"), { name: "" }))).toEqual({
      error: "Error",
      message: "Nameless",
    });
  });

  it("lets a stop from outside win over what the graph did meanwhile", () => {
    for (const execution of [done, asked, failed]) {
      expect(settle(execution, stop("cancel"))).toMatchObject({
        result: { status: "interrupted", interrupted: false, values, error: undefined },
        outcome: { status: "cancelled" },
      });
      expect(settle(execution, stop("rollback"))).toMatchObject({
        result: { status: "interrupted" },
        outcome: { status: "rolled_back" },
      });
    }
  });

  it("leaves a question that waits where a run was stopped, failed or took too long", () => {
    const reached = { values: { trail: ["fast"] }, interrupts: { task: [{ id: "1" }] } };
    expect(settle({ ...done, reached }, stop("cancel")).result).toMatchObject({
      ...reached,
      output: values,
      resting: "interrupted",
    });
    for (const settled of [
      settle({ ...failed, reached }, undefined),
      settle({ ...done, reached }, new RunTimeout(1)),
    ]) {
      expect(settled.result).toMatchObject(reached);
      expect(settled.result?.resting).toBeUndefined();
    }
    expect(
      settle({ ...done, reached: { ...reached, interrupts: {} } }, stop("cancel")).result?.resting,
    ).toBe("idle");
  });

  it("leaves the thread as it was where nobody knows what state a stopped run left", () => {
    expect(settle(done, stop("cancel")).result).toMatchObject({
      interrupts: undefined,
      resting: "unchanged",
    });
  });

  it("leaves the thread as it was before a run that is rolled back", () => {
    expect(settle(asked, stop("rollback")).result).toMatchObject({
      values: undefined,
      interrupts: undefined,
      resting: "unchanged",
    });
  });

  it("writes nothing about a run that is not this worker's any more", () => {
    for (const execution of [done, asked, failed]) {
      for (const kind of ["lost", "shutdown", "unavailable"] as const) {
        const { result, outcome } = settle(execution, stop(kind));
        expect(result).toBeUndefined();
        expect(outcome.status).toBe("lost");
      }
    }
  });
});

describe("a settlement that is stored", () => {
  it("is the same, as JSON", () => {
    const settlement = settle(asked, undefined);
    const { result, outcome } = toStorable(settlement);
    expect(outcome).toBe(settlement.outcome);
    expect(result?.plain).toBe(settlement.result);
    expect(JSON.parse(result?.output ?? "")).toEqual(settlement.result?.output);
    expect(JSON.parse(result?.values ?? "")).toEqual(values);
    expect(result).toMatchObject({ error: null, resting: "interrupted" });
    expect(toStorable(settle(done, stop("lost"))).result).toBeUndefined();
  });

  it("is an error, in the trace too, where its state has no form that is stored", () => {
    const state = {
      toJSON: () => {
        throw new TypeError("not mine to give");
      },
    };
    const { result, outcome } = toStorable(settle({ ...done, values: { state } }, undefined));
    const message = "The graph's state cannot be stored: not mine to give";
    expect(result).toMatchObject({
      plain: { status: "error", error: { message } },
      output: null,
      values: null,
      resting: "error",
    });
    expect(outcome).toMatchObject({ status: "error", error: { message } });
  });
});
