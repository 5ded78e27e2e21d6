/**
 * Stands in for Langfuse in a process of its own, misbehaves when it is told to, and tells what is missing. Its
 * port stays the same when it stops listening for a while.
 */
import {
  openLangfuseReceiver,
  type Behaviour,
  type LangfuseReceiver,
} from "../../test/support/langfuse-receiver.ts";
import { missing } from "../../test/support/traced-project.ts";
import { answer } from "../child.ts";

export type Question =
  | { what: "open" }
  | { what: "behave"; behaviour: Behaviour | { kind: "refuse" } | { kind: "flap" } }
  /** `names`: the spans each trace should have, if not those of the traced project. */
  | { what: "check"; traceIds: string[]; names?: string[] }
  | { what: "clear" };

export interface Checked {
  spans: number;
  /** Spans that came more than once, byte for byte the same. */
  duplicates: number;
  /** Spans that came more than once and not the same. */
  different: number;
  requests: number;
  /** What is missing of the traces asked for, as sentences. */
  missing: string[];
}

const FLAP_EVERY_MS = 500;
const FLAPS: Behaviour[] = [
  { kind: "drop" },
  { kind: "accept" },
  { kind: "status", status: 500 },
  { kind: "accept" },
  { kind: "cut-answer" },
  { kind: "hang" },
];

let receiver: LangfuseReceiver | undefined;
let port = 0;
/** What came before the receiver last stopped listening. */
let earlier: LangfuseReceiver["spans"] = [];
let different = 0;
let requests = 0;
let flapping: NodeJS.Timeout | undefined;

answer(async (question: Question) => {
  switch (question.what) {
    case "open": {
      const opened = await open();
      const { url, publicKey, secretKey } = opened;
      return { url, publicKey, secretKey };
    }
    case "behave":
      return behave(question.behaviour);
    case "check":
      return check(question.traceIds, question.names);
    case "clear":
      receiver?.clear();
      earlier = [];
      different = 0;
      requests = 0;
      return {};
  }
});

async function open(): Promise<LangfuseReceiver> {
  receiver ??= await openLangfuseReceiver({ port });
  port = receiver.port;
  return receiver;
}

async function behave(
  behaviour: Extract<Question, { what: "behave" }>["behaviour"],
): Promise<object> {
  clearInterval(flapping);
  if (behaviour.kind === "refuse") {
    keep();
    await receiver?.close();
    receiver = undefined;
    return {};
  }
  const opened = await open();
  if (behaviour.kind !== "flap") {
    opened.behave(behaviour);
    return {};
  }
  let turn = 0;
  flapping = setInterval(() => {
    opened.behave(FLAPS[turn % FLAPS.length] ?? { kind: "accept" });
    turn += 1;
  }, FLAP_EVERY_MS);
  return {};
}

function keep(): void {
  if (receiver === undefined) return;
  earlier = [...earlier, ...receiver.spans];
  different += countDifferent(receiver);
  requests += receiver.attempts();
}

function countDifferent(of: LangfuseReceiver): number {
  return of.violations().filter((text) => text.includes("not the same")).length;
}

function check(traceIds: readonly string[], names?: readonly string[]): Checked {
  const spans = [...earlier, ...(receiver?.spans ?? [])];
  const unique = new Set(spans.map((span) => `${span.traceId}/${span.spanId}`));
  const unequal = different + (receiver === undefined ? 0 : countDifferent(receiver));
  return {
    spans: unique.size,
    duplicates: spans.length - unique.size - unequal,
    different: unequal,
    requests: requests + (receiver?.attempts() ?? 0),
    missing: missing(spans, traceIds, names),
  };
}
