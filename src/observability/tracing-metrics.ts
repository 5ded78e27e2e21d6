import { Counter, Gauge, type Registry } from "prom-client";
import type { ObserverStatus, StreamStatus } from "./observer.ts";

type Stream = "spans" | "scores";
type Kind = "counter" | "gauge";

/** The numbers of one stream; what delivery alone knows is absent where there is none. */
type StreamNumbers = ObserverStatus["spans"] & Partial<StreamStatus>;

interface StreamMetric {
  /** The names for spans and for scores. */
  names: Record<Stream, string>;
  /** With `spans` in it, which is replaced for scores. */
  help: string;
  kind: Kind;
  read: (numbers: StreamNumbers) => number | undefined;
}

const PREFIX = "aegra_trace";

const STREAM_METRICS: readonly StreamMetric[] = [
  metric("made_total", "counter", "The spans made for a target.", ({ made }) => made),
  metric("exported_total", "counter", "The spans the target has accepted.", ({ sent }) => sent),
  metric("waiting", "gauge", "The spans that are not delivered yet.", ({ pending }) => pending),
  metric(
    "dropped_total",
    "counter",
    "The spans given up: no room, too old, or refused for good.",
    ({ dropped }) => dropped,
  ),
  metric(
    "failed_total",
    "counter",
    "The spans refused for good by the target, kept as dead letters; they count as dropped too.",
    (numbers) => numbers.dead_lettered,
  ),
  metric(
    "retried_total",
    "counter",
    "The spans put into a further request because one failed.",
    ({ retried }) => retried,
  ),
  metric(
    "adopted_total",
    "counter",
    "The spans taken over from another process, or put back from the dead letters.",
    ({ adopted }) => adopted,
  ),
  metric(
    "torn_files_total",
    "counter",
    "Files of spans that ended in half a record or could not be read.",
    ({ torn }) => torn,
  ),
  {
    ...metric(
      "bytes_waiting",
      "gauge",
      "Bytes of the spans that are not delivered yet.",
      (numbers) => numbers.pending_bytes,
    ),
    names: { spans: `${PREFIX}_bytes_waiting`, scores: `${PREFIX}_scores_bytes_waiting` },
  },
  {
    ...metric(
      "oldest_waiting_seconds",
      "gauge",
      "Age of the oldest of the spans that are not delivered yet.",
      (numbers) =>
        numbers.pending_bytes === undefined ? undefined : (numbers.oldest_ms ?? 0) / 1_000,
    ),
    names: {
      spans: `${PREFIX}_oldest_waiting_seconds`,
      scores: `${PREFIX}_scores_oldest_waiting_seconds`,
    },
  },
  metric(
    "last_success_timestamp_seconds",
    "gauge",
    "When the target last accepted spans, in seconds since 1970.",
    (numbers) => toSeconds(numbers.last_success_at),
  ),
  metric(
    "last_error_timestamp_seconds",
    "gauge",
    "When sending spans to the target last failed, in seconds since 1970.",
    (numbers) => toSeconds(numbers.last_error_at),
  ),
];

function metric(name: string, kind: Kind, help: string, read: StreamMetric["read"]): StreamMetric {
  const names = { spans: `${PREFIX}_spans_${name}`, scores: `${PREFIX}_scores_${name}` };
  return { names, help, kind, read };
}

/** The numbers of every target, read from its status at every scrape; those of scores where it has any. */
export function addTracingMetrics(
  registers: Registry[],
  targets: () => readonly ObserverStatus[],
): void {
  for (const { names, help, kind, read } of STREAM_METRICS) {
    add(names.spans, help, kind, ({ spans, delivery }) => read({ ...delivery, ...spans }));
    add(names.scores, help.replace(/\bspans\b/u, "scores"), kind, ({ delivery }) =>
      delivery?.scores === undefined ? undefined : read(delivery.scores),
    );
  }
  add(
    `${PREFIX}_target_up`,
    "1 while traces can be sent to the target, 0 while they cannot.",
    "gauge",
    ({ state }) => (state === "on" ? 1 : 0),
  );

  function add(
    name: string,
    help: string,
    kind: Kind,
    read: (status: ObserverStatus) => number | undefined,
  ): void {
    const Kind = kind === "counter" ? Counter : Gauge;
    void new Kind({
      name,
      help,
      labelNames: ["target"],
      registers,
      collect() {
        this.reset();
        for (const status of targets()) {
          const value = read(status);
          if (value !== undefined) this.inc({ target: status.name }, value);
        }
      },
    });
  }
}

function toSeconds(time: string | undefined): number | undefined {
  return time === undefined ? undefined : Date.parse(time) / 1_000;
}
