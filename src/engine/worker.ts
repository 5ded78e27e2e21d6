import { randomUUID } from "node:crypto";
import type { CancelAction } from "../protocol/runs.ts";
import type { RunLimits } from "../storage/run-queue.ts";
import type { RunResult } from "../storage/run-result.ts";
import type { RunRecord } from "../storage/run-record.ts";
import { gravityOf } from "./gravity.ts";
import { Attempt, type AttemptOptions } from "./attempt.ts";

/*
 * The worker of one process:   open --drain--> draining --> stopped
 *
 * While it is open it takes runs, as many at a time as it has slots: those its own process has just accepted
 * (`reserve`, then `start`), and those waiting in the queue (`poke`, and a poll for what no poke told of).
 * Each run in its hands has a lease, which it renews; a run whose lease is lost is aborted and leaves no trace
 * in the database.
 */

const RECOVER_MS = 1_000;

export interface WorkerOptions extends AttemptOptions {
  /** Is told of every run this worker takes up. */
  onStarted: (run: RunRecord) => void;
  /** Runs executed at the same time. */
  concurrency: number;
  leaseMs: number;
  /** How often the queue is looked into where no hint comes. */
  pollMs: number;
  /** How often leases are renewed, which also tells what was asked of a run meanwhile. */
  renewMs: number;
  /** Does the work of a run where its graph finds the server that it belongs to. */
  within: <T>(work: () => T) => T;
  limits: RunLimits;
}

/** The right to create a run that this worker executes. */
export interface Slot {
  workerId: string;
  leaseMs: number;
  /** In this process's clock. */
  askedAt: number;
}

export class Worker {
  readonly id = randomUUID();
  readonly #options: WorkerOptions;
  readonly #active = new Map<string, Attempt>();
  #reserved = 0;
  #draining = false;
  #claiming = false;
  #pokedAgain = false;
  /** Whether the queue may hold a run for this worker; false once a look has found it empty. */
  #mayWait = true;
  readonly #timers: NodeJS.Timeout[] = [];

  constructor(options: WorkerOptions) {
    this.#options = options;
  }

  /** Begins to take runs from the queue. */
  open(): void {
    const every = (ms: number, work: () => Promise<void>): void => {
      const tick = (): void => void work().catch((error: unknown) => this.#complain(error));
      this.#timers.push(setInterval(tick, ms));
    };
    every(this.#options.pollMs, async () => this.poke());
    every(this.#options.renewMs, () => this.#renew());
    every(RECOVER_MS, async () => {
      const recovered = await this.#options.queue.recover({
        held: [...this.#active.keys()],
        everything: false,
      });
      for (const run of recovered) {
        this.#options.log.warn(
          { run_id: run.run_id, attempt: run.attempt },
          "run recovered from a silent worker",
        );
      }
      if (recovered.length > 0) this.poke();
    });
    this.poke();
  }

  /**
   * A slot for a run that is about to be created, with the lease to create it under; `undefined` if all are
   * taken. Whoever reserves calls `start` or `unreserve`.
   */
  reserve(): Slot | undefined {
    // Where runs are limited across processes, the queue knows how many there are, and the process does not.
    if (this.#draining || this.#isLimited || this.#free() <= 0) return undefined;
    this.#reserved += 1;
    return { workerId: this.id, leaseMs: this.#options.leaseMs, askedAt: Date.now() };
  }

  unreserve(): void {
    this.#reserved -= 1;
    if (this.#mayWait) this.poke();
  }

  /**
   * Executes a run whose lease this worker holds since `askedAt` at the earliest; `emptyThread` if its thread is
   * known to have no checkpoints, `queued` if whoever asked for it may be in another process.
   */
  start(run: RunRecord, how: { askedAt: number; emptyThread: boolean; queued: boolean }): void {
    const { emptyThread, queued, askedAt } = how;
    const attempt = new Attempt(this.#options, {
      run,
      lease: { run_id: run.run_id, worker_id: this.id, attempt: run.attempt },
      emptyThread,
      queued,
      heldUntil: askedAt + this.#options.leaseMs,
      renew: () => this.#renew(),
    });
    // Silent for too long, this worker may still execute an attempt that another process has put back.
    this.#active.get(run.run_id)?.stop("lost");
    this.#active.set(run.run_id, attempt);
    this.#options.onStarted(run);
    void this.#options
      .within(() => attempt.execute())
      .finally(() => {
        if (this.#active.get(run.run_id) === attempt) this.#active.delete(run.run_id);
        if (attempt.followed) this.#mayWait = true;
        // A look costs a statement, and keeps slots from runs that come in meanwhile.
        if (this.#mayWait) this.poke();
      });
  }

  /** Looks for work now, or as soon as there is a slot: there may be some. */
  poke(): void {
    this.#mayWait = true;
    if (this.#claiming) {
      this.#pokedAgain = true;
      return;
    }
    if (this.#draining || this.#free() <= 0) return;
    this.#claiming = true;
    void this.#claim()
      .catch((error: unknown) => this.#complain(error))
      .finally(() => {
        this.#claiming = false;
        if (!this.#pokedAgain) return;
        this.#pokedAgain = false;
        this.poke();
      });
  }

  /** Asks a run in this worker's hands to stop; false if it is not here. */
  stop(runId: string, action: CancelAction): boolean {
    const active = this.#active.get(runId);
    active?.stop(action === "rollback" ? "rollback" : "cancel");
    return active !== undefined;
  }

  /** How a run in this worker's hands ends (`undefined`: not here to the end); `undefined` if it is not here. */
  ended(runId: string): Promise<RunResult | undefined> | undefined {
    return this.#active.get(runId)?.ended;
  }

  get activeRuns(): number {
    return this.#active.size;
  }

  /** Takes nothing new, lets runs finish for at most `graceMs`, and hands the others back to the queue. */
  async drain(graceMs: number): Promise<void> {
    this.#draining = true;
    this.#timers.forEach((timer) => clearInterval(timer));
    const renewal = setInterval(
      () => void this.#renew().catch((error: unknown) => this.#complain(error)),
      this.#options.renewMs,
    );
    let timer: NodeJS.Timeout | undefined;
    const grace = new Promise((resolve) => {
      timer = setTimeout(resolve, graceMs);
    });
    await Promise.race([Promise.all([...this.#active.values()].map((run) => run.ended)), grace]);
    clearTimeout(timer);
    for (const run of this.#active.values()) {
      run.stop("shutdown");
    }
    await Promise.all([...this.#active.values()].map((run) => run.ended));
    clearInterval(renewal);
  }

  get #isLimited(): boolean {
    const { perUser, perAssistant } = this.#options.limits;
    return perUser !== undefined || perAssistant !== undefined;
  }

  #free(): number {
    return this.#options.concurrency - this.#active.size - this.#reserved;
  }

  async #claim(): Promise<void> {
    const limit = this.#free();
    this.#reserved += limit;
    const askedAt = Date.now();
    let claimed: RunRecord[] = [];
    try {
      claimed = await this.#options.queue.claim({
        workerId: this.id,
        leaseMs: this.#options.leaseMs,
        limit,
        limits: this.#options.limits,
      });
    } finally {
      this.#reserved -= limit;
    }
    if (claimed.length < limit) this.#mayWait = false;
    for (const run of claimed) this.start(run, { askedAt, emptyThread: false, queued: true });
  }

  async #renew(): Promise<void> {
    const held = [...this.#active.keys()];
    if (held.length === 0) return;
    const asked = Date.now();
    let renewed: Map<string, { cancel_action: CancelAction | null; logged: boolean }>;
    try {
      const rows = await this.#options.queue.renew(this.id, held, this.#options.leaseMs);
      renewed = new Map(rows.map((row) => [row.run_id, row]));
    } catch (error) {
      // The database is away. Runs go on until their lease would have run out.
      for (const run of this.#active.values()) {
        if (run.heldUntil < Date.now()) run.stop("lost");
      }
      throw error;
    }
    for (const runId of held) {
      const run = this.#active.get(runId);
      if (!run) continue;
      const lease = renewed.get(runId);
      if (!lease) {
        run.stop("lost");
        continue;
      }
      run.confirm(asked + this.#options.leaseMs);
      if (lease.logged) this.#options.events.log(runId);
      if (lease.cancel_action) this.stop(runId, lease.cancel_action);
    }
  }

  #complain(error: unknown): void {
    this.#options.log[gravityOf(error, "error")]({ err: error }, "worker");
  }
}
