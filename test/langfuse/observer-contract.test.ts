import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  createNoopObserver,
  type Observer,
  type RunOutcome,
} from "../../src/observability/observer.ts";
import { openOtlpReceiver, type OtlpReceiver } from "../support/otlp-receiver.ts";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";
import { createRecordingObserver } from "../support/recording-observer.ts";
import { single } from "./graphs.ts";
import { createLogCapture, configFor, observedRun } from "./harness.ts";
import { composeObservers } from "../../src/observability/compose.ts";
import { loadLangfuseObserver } from "../../src/observability/langfuse/observer.ts";
import { createMetrics } from "../../src/observability/metrics.ts";
import { loadOtlpObserver, type OtlpConfig } from "../../src/observability/otlp/observer.ts";
import { loadTracing } from "../../src/observability/tracing.ts";

let receiver: LangfuseReceiver;
let backend: OtlpReceiver;
beforeAll(async () => {
  receiver = await openLangfuseReceiver();
  backend = await openOtlpReceiver();
});
afterAll(() => Promise.all([receiver.close(), backend.close()]));

const { log } = createLogCapture();
const langfuse = (): Promise<Observer> => loadLangfuseObserver(configFor(receiver), { log });
const otlpConfig = (protocol: OtlpConfig["protocol"]): OtlpConfig => ({
  name: "otlp",
  url: `${backend.url}/v1/traces`,
  protocol,
  headers: {},
  resource: { "service.name": "test" },
  timeoutMs: 1_000,
  flushIntervalMs: 20,
});
const OBSERVERS: Array<[string, () => Promise<Observer>]> = [
  ["the no-op", async () => createNoopObserver()],
  ["the recorder", async () => createRecordingObserver()],
  ["Langfuse", () => loadLangfuseObserver(configFor(receiver), { log })],
  [
    "Langfuse with wrong keys",
    () => loadLangfuseObserver({ ...configFor(receiver), secretKey: "no" }, { log }),
  ],
  [
    "Langfuse without keys",
    () => loadLangfuseObserver({ ...configFor(receiver), secretKey: "" }, { log }),
  ],
  [
    "Langfuse at a host that is down",
    () => loadLangfuseObserver({ ...configFor(receiver), host: "http://127.0.0.1:1" }, { log }),
  ],
  [
    "Langfuse switched off",
    () => loadLangfuseObserver({ ...configFor(receiver), enabled: false }, { log }),
  ],
  ["OTLP", () => loadOtlpObserver(otlpConfig("http/protobuf"), { log })],
  ["OTLP in JSON", () => loadOtlpObserver(otlpConfig("http/json"), { log })],
  [
    "OTLP at a host that is down",
    () =>
      loadOtlpObserver({ ...otlpConfig("http/protobuf"), url: "http://127.0.0.1:1/v1" }, { log }),
  ],
  ["Phoenix", () => loadOtlpObserver({ ...otlpConfig("http/protobuf"), name: "phoenix" }, { log })],
  [
    "several",
    async () => composeObservers([await langfuse(), createRecordingObserver()], () => {}),
  ],
  [
    "all of tracing",
    () =>
      loadTracing({ langfuse: configFor(receiver), otlp: [otlpConfig("http/protobuf")] }, { log }),
  ],
  [
    "metrics",
    async () =>
      createMetrics({
        queueDepth: async () => ({ waiting: 0, oldest_seconds: 0 }),
        targets: () => [],
        webhooks: {
          depth: async () => ({ waiting: 0, oldest_seconds: 0 }),
          done: () => ({ delivered: 0, failed: 0 }),
        },
      }).observer,
  ],
];

const STATUSES: RunOutcome["status"][] = [
  "success",
  "interrupted",
  "cancelled",
  "rolled_back",
  "timeout",
  "error",
  "lost",
];

describe.each(OBSERVERS)("%s", (_name, open) => {
  test("leaves the run's result and errors alone", async () => {
    const observer = await open();
    const observation = observer.startRun(observedRun());
    const graph = single(() => ({ count: 2 }));
    const output = await observation.within(() =>
      graph.invoke(
        { count: 1 },
        {
          callbacks: observation.callbacks,
          metadata: { ...observation.metadata },
        },
      ),
    );
    expect(output).toEqual({ count: 3, notes: [] });
    observation.end({ status: "success", output });
    const failure = new Error("mine");
    const failing = single(() => {
      throw failure;
    });
    const second = observer.startRun(observedRun());
    await expect(
      second.within(() => failing.invoke({ count: 1 }, { callbacks: second.callbacks })),
    ).rejects.toBe(failure);
    second.end({ status: "error", error: failure });
    await observer.shutdown(100);
  });

  test("within gives back what the work gives, and lets its errors through", async () => {
    const observer = await open();
    const observation = observer.startRun(observedRun());
    expect(observation.within(() => 7)).toBe(7);
    await expect(observation.within(async () => "later")).resolves.toBe("later");
    expect(() =>
      observation.within(() => {
        throw new RangeError("through");
      }),
    ).toThrow(RangeError);
    await observer.shutdown(100);
  });

  test("every method may be called in any order, any number of times", async () => {
    const observer = await open();
    for (const status of STATUSES) {
      const observation = observer.startRun(observedRun({ attempt: 2 }));
      observation.end({ status, error: new Error("x"), interrupts: ["a", "b"] });
      observation.end({ status: "success" });
      expect(observation.within(() => 1)).toBe(1);
    }
    await observer.ready();
    await observer.ready();
    await observer.shutdown(100);
    await observer.shutdown(100);
    const late = observer.startRun(observedRun());
    late.end({ status: "success" });
    expect(typeof (await observer.flush(10))).toBe("boolean");
    const score = {
      id: "1",
      run_id: "r",
      name: "n",
      value: 1,
      data_type: "NUMERIC",
      comment: undefined,
    } as const;
    await observer.score(score);
    expect(() => observer.traceUrl("not-a-run")).not.toThrow();
  });

  test("callbacks that come after the end are ignored", async () => {
    const observer = await open();
    const observation = observer.startRun(observedRun());
    observation.end({ status: "cancelled" });
    const graph = single(() => ({ count: 2 }));
    await expect(
      graph.invoke({ count: 1 }, { callbacks: observation.callbacks }),
    ).resolves.toBeDefined();
    await observer.shutdown(100);
  });

  test("status is an answer for a person, without credentials", async () => {
    const observer = await open();
    await observer.ready();
    for (const status of observer.status()) {
      expect(status.message).toMatch(/\w.*\.$/);
      const { made, sent, pending, dropped } = status.spans;
      expect(made).toBe(sent + pending + dropped);
      expect(JSON.stringify(status)).not.toContain(receiver.secretKey);
    }
    await observer.shutdown(100);
  });
});
