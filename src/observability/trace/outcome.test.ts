import { expect, test } from "vitest";
import { errorStack, errorText, interruptOutput, interruptValue, readFailure } from "./outcome.ts";

function aborted(reason: unknown): AbortSignal {
  const controller = new AbortController();
  controller.abort(reason);
  return controller.signal;
}

test.each([
  ["an AbortError", new DOMException("stopped", "AbortError"), undefined, "WARNING"],
  ["LangGraph's own abort", new Error("Aborted"), undefined, "WARNING"],
  ["fetch's abort", new Error("This operation was aborted"), undefined, "WARNING"],
  ["an abort by code", Object.assign(new Error("x"), { code: "ABORT_ERR" }), undefined, "WARNING"],
  ["a timeout", new DOMException("too late", "TimeoutError"), undefined, "ERROR"],
  ["anything else", new Error("broken"), undefined, "ERROR"],
  [
    "anything else while the run is stopped",
    new Error("broken"),
    aborted(new Error("stop")),
    "ERROR",
  ],
  [
    "an abort because of a timeout",
    new Error("Aborted"),
    aborted(new DOMException("", "TimeoutError")),
    "ERROR",
  ],
] as const)("%s", (_name, error, signal, level) => {
  expect(readFailure(error, signal).level).toBe(level);
});

test("the signal's own reason is a cancel, whatever it is", () => {
  const error = new Error("the client said stop");
  expect(readFailure(error, aborted(error))).toMatchObject({
    level: "WARNING",
    statusMessage: "the client said stop",
  });
  const reason = { kind: "cancel" };
  expect(readFailure(reason, aborted(reason))).toMatchObject({
    level: "WARNING",
    statusMessage: "stopped",
  });
});

test("interrupts and hand-offs are no failures", () => {
  const interrupt = { is_bubble_up: true, interrupts: [{ id: "1", value: { q: 1 } }] };
  expect(readFailure(interrupt, undefined)).toMatchObject({ level: "DEFAULT", output: { q: 1 } });
  const command = {
    is_bubble_up: true,
    command: { goto: ["a", "b"], update: { n: 1 }, graph: "__parent__" },
  };
  expect(readFailure(command, undefined)).toMatchObject({
    level: "DEFAULT",
    output: { goto: ["a", "b"], update: { n: 1 }, graph: "parent" },
  });
  expect(interruptOutput(["a", "b"].map(interruptValue))).toEqual(["a", "b"]);
});

test("the text a person looks for", () => {
  expect(errorText(new Error("plain"))).toBe("plain");
  expect(errorText(new TypeError("bad"))).toBe("TypeError: bad");
  expect(errorText("thrown text")).toBe("thrown text");
  expect(errorText(42)).toBe("thrown: 42");
  expect(errorText(undefined)).toBe("thrown: undefined");
  expect(errorText(new Error(""))).toBe("unknown error");
  const hostile = new Proxy(
    {},
    {
      get: () => {
        throw new Error("no");
      },
    },
  );
  expect(errorText(hostile)).toBe("unknown error");
  expect(readFailure(hostile, undefined).level).toBe("ERROR");
  expect(errorStack(hostile)).toBeUndefined();
});

test("the stack names its causes, and ends", () => {
  const loop = new Error("outer", { cause: new Error("inner") });
  expect(errorStack(loop)).toMatch(/outer[\s\S]*Caused by: Error: inner/);
  Object.defineProperty(loop, "cause", { value: loop });
  expect(errorStack(loop)?.split("Caused by").length).toBe(5);
});
