import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { addQueueMetrics, type QueueDepth } from "./queue-metrics.ts";
import { addTracingMetrics } from "./tracing-metrics.ts";
import { addWebhookMetrics, type WebhookNumbers } from "./webhook-metrics.ts";
import {
  createNoopObserver,
  type Observer,
  type ObserverStatus,
  type RunObservation,
} from "./observer.ts";

/** Numbers for Prometheus. Nothing here is global: two servers in one process have two of these. */
export interface Metrics {
  /** Counts and times runs; an observer like the others. */
  readonly observer: Observer;
  /** Everything in Prometheus' text format, as of now. Never rejects. */
  render(): Promise<{ contentType: string; text: string }>;
}

export interface MetricsOptions {
  /** What waits for a worker, in the whole deployment. Asked at every scrape. */
  queueDepth: () => Promise<QueueDepth>;
  /** The tracing targets. Asked at every scrape. */
  targets: () => readonly ObserverStatus[];
  /** Webhooks. Asked at every scrape. */
  webhooks: WebhookNumbers;
}

/** Seconds. Runs of agents last from milliseconds to many minutes. */
const DURATION_BUCKETS = [
  0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800,
];
const WAIT_BUCKETS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1_800];

/** Metrics of runs, of tracing and of the process, in a registry of their own. */
export function createMetrics(options: MetricsOptions): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const runs = createRunMetrics(registers);
  addQueueMetrics(registers, options.queueDepth, {
    waiting: {
      name: "aegra_runs_waiting",
      help: "Runs that wait for a worker, in the whole deployment.",
    },
    oldest_seconds: {
      name: "aegra_run_oldest_waiting_seconds",
      help: "For how long the first of them has been waiting.",
    },
  });
  addWebhookMetrics(registers, options.webhooks);
  addTracingMetrics(registers, options.targets);
  addProcessMetrics(registers);
  return {
    observer: runs,
    async render() {
      return { contentType: registry.contentType, text: await registry.metrics() };
    },
  };
}

function createRunMetrics(registers: Registry[]): Observer {
  const ended = new Counter({
    name: "aegra_runs_total",
    help: "Runs executed by this process, by how they ended; `lost` ones go on elsewhere.",
    labelNames: ["graph", "status"],
    registers,
  });
  const active = new Gauge({
    name: "aegra_runs_active",
    help: "Runs this process executes now.",
    labelNames: ["graph"],
    registers,
  });
  const wait = new Histogram({
    name: "aegra_run_queue_wait_seconds",
    help: "From the request for a run to its start.",
    labelNames: ["graph"],
    buckets: WAIT_BUCKETS,
    registers,
  });
  const duration = new Histogram({
    name: "aegra_run_duration_seconds",
    help: "From a run's start to its end.",
    labelNames: ["graph", "status"],
    buckets: DURATION_BUCKETS,
    registers,
  });
  const first = new Histogram({
    name: "aegra_run_first_event_seconds",
    help: "From a run's start to its first event: a token, an update, values.",
    labelNames: ["graph"],
    buckets: DURATION_BUCKETS,
    registers,
  });
  return {
    ...createNoopObserver(),
    startRun(run): RunObservation {
      // No process has executed it.
      if (run.waiting) return createNoopObserver().startRun(run);
      const graph = run.graph_id;
      const startedMs = performance.now();
      const seconds = (): number => (performance.now() - startedMs) / 1_000;
      let open = true;
      let told = false;
      active.inc({ graph });
      const waitedMs = run.started_at.getTime() - run.created_at.getTime();
      if (run.attempt === 1) wait.observe({ graph }, Math.max(0, waitedMs) / 1_000);
      return {
        ...createNoopObserver().startRun(run),
        firstEvent() {
          if (told) return;
          told = true;
          first.observe({ graph }, seconds());
        },
        end({ status }) {
          if (!open) return;
          open = false;
          active.dec({ graph });
          ended.inc({ graph, status });
          duration.observe({ graph, status }, seconds());
        },
      };
    },
  };
}

/** A few numbers of the process. prom-client's own set installs observers that nothing ever removes. */
function addProcessMetrics(registers: Registry[]): void {
  const started = Date.now() / 1_000 - process.uptime();
  let utilization = performance.eventLoopUtilization();
  const gauges: [name: string, help: string, read: () => number][] = [
    ["process_start_time_seconds", "Start of the process, in seconds since 1970.", () => started],
    ["process_resident_memory_bytes", "Resident memory.", () => process.memoryUsage.rss()],
    ["nodejs_heap_used_bytes", "JavaScript heap in use.", () => process.memoryUsage().heapUsed],
    [
      "nodejs_eventloop_utilization",
      "Share of the time since the last scrape in which the event loop was busy.",
      () => {
        const now = performance.eventLoopUtilization();
        const since = performance.eventLoopUtilization(now, utilization);
        utilization = now;
        return since.utilization;
      },
    ],
  ];
  for (const [name, help, read] of gauges) {
    void new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  }
  void new Counter({
    name: "process_cpu_seconds_total",
    help: "Processor time, user and system.",
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
}
