import { v7 as uuid7 } from "@langchain/core/utils/uuid";
import type { Principal } from "../auth/principal.ts";
import { ServerError } from "../errors.ts";
import type { Logger } from "../observability/log.ts";
import { CronPayload, type CronCreate, type CronPatch } from "../protocol/crons.ts";
import type { Filter } from "../protocol/filters.ts";
import { RunCreate } from "../protocol/runs.ts";
import type { CronChange, CronRecord, CronRepository, DueCron } from "../storage/crons.ts";
import { gravityOf } from "./gravity.ts";
import { parseSchedule } from "./cron-schedule.ts";
import type { RunRequest } from "./new-run.ts";
import type { RunEngine } from "./runs.ts";
import type { Webhooks } from "./webhooks.ts";

/** How often a process looks for crons that are due. */
const LOOK_MS = 1_000;
/** How many due crons a process takes at a time, and how long it has for them before another may try. */
const BATCH = 20;
/** How many of them at the same time, each on a connection of its own. */
const AT_ONCE = 4;
const CLAIM_MS = 30_000;

export interface CronsOptions {
  crons: CronRepository;
  runs: RunEngine;
  webhooks: Webhooks;
  log: Logger;
}

/**
 * Crons as behaviour. Every process looks for those that are due and takes some; who fires one moves it on and
 * writes its run in one transaction. A cron whose times went by while no process ran fires once and goes on.
 */
export class Crons {
  readonly #options: CronsOptions;
  #timer: NodeJS.Timeout | undefined;
  #firing: Promise<void> | undefined;

  constructor(options: CronsOptions) {
    this.#options = options;
  }

  /** Begins to fire what is due. */
  open(): void {
    this.#timer = setInterval(() => {
      this.#firing ??= this.fire()
        .catch((error: unknown) =>
          this.#options.log[gravityOf(error, "error")]({ err: error }, "crons"),
        )
        .finally(() => {
          this.#firing = undefined;
        });
    }, LOOK_MS);
  }

  /** Stops, and waits for the crons that are being fired. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#firing;
  }

  /**
   * Makes a cron whose runs belong to `threadId`, or to no thread, as if `request` had asked for each. Throws what the creation of such a run
   * throws, and `invalid_request` for a schedule, time zone or end that cannot be.
   */
  async create(
    threadId: string | undefined,
    body: CronCreate,
    request: RunRequest,
  ): Promise<CronRecord> {
    const { assistant_id, schedule, timezone, enabled, end_time, on_run_completed } = body;
    if (threadId !== undefined) assertThreadStays(on_run_completed);
    const payload = toPayload(body);
    const { crons, runs } = this.#options;
    // What a run like this is refused for, the cron is refused for.
    const trial = await runs.prepare(
      threadId,
      toCronRun({ assistant_id, payload, on_run_completed, metadata: {} }),
      request,
    );
    const timing = {
      schedule,
      timezone: timezone ?? null,
      enabled,
      end_time: end_time ?? null,
    };
    const now = await crons.now();
    assertComesDue(timing, now);
    const { principal } = request;
    const made = {
      ...timing,
      cron_id: uuid7(),
      assistant_id: trial.assistant_id,
      thread_id: threadId ?? null,
      on_run_completed: threadId === undefined ? (on_run_completed ?? "delete") : null,
      payload,
      metadata: body.metadata ?? {},
      user_id: principal?.identity ?? null,
      origin: {
        base_url: request.baseUrl,
        ...(principal && { user: principal.user, permissions: principal.permissions }),
      },
      next_run_date: toNextDate(timing, now),
    };
    const cron = await crons.create(made, request.threadFilter);
    if (cron) return cron;
    throw new ServerError("not_found", `Thread with ID ${threadId} not found`);
  }

  /**
   * Changes what `patch` names; metadata is merged. A time that is due already is not lost by a change of what
   * the runs do. Throws `not_found`, and `invalid_request` as `create` does.
   */
  async update(cronId: string, patch: CronPatch, filter: Filter | undefined): Promise<CronRecord> {
    if (patch.webhook !== undefined) this.#options.webhooks.assertAccepted(patch.webhook);
    const change = (cron: CronRecord, now: Date): CronChange => toChange(cron, patch, now);
    const updated = await this.#options.crons.update(cronId, change, filter);
    if (updated) return updated;
    throw new ServerError("not_found", `Cron ${cronId} not found`);
  }

  /** Fires every cron that is due and that no other process has taken. */
  async fire(): Promise<void> {
    for (;;) {
      const due = await this.#options.crons.claimDue(BATCH, CLAIM_MS);
      for (let start = 0; start < due.length; start += AT_ONCE) {
        await Promise.all(due.slice(start, start + AT_ONCE).map((one) => this.#tryOne(one)));
      }
      if (due.length < BATCH) return;
    }
  }

  async #tryOne(due: DueCron): Promise<void> {
    try {
      await this.#fireOne(due);
    } catch (error) {
      this.#options.log.error(
        { err: error, cron_id: due.cron.cron_id },
        "a cron did not fire; it will be tried again",
      );
    }
  }

  async #fireOne({ cron, due, now }: DueCron): Promise<void> {
    const { crons, runs, log } = this.#options;
    const metadata = { ...cron.metadata, cron_id: cron.cron_id };
    const run = await runs.prepare(
      cron.thread_id ?? undefined,
      toCronRun({ ...cron, metadata }),
      toRequest(cron),
      { whateverGraph: true },
    );
    const fired = await crons.fire({
      cron_id: cron.cron_id,
      due,
      next: toNextDate(cron, now),
      run,
      newThread: cron.thread_id === null && !run.temporary ? metadata : undefined,
    });
    if (fired.kind === "created") await runs.announce(fired.run);
    if (fired.kind === "thread_busy") {
      log.warn(
        { cron_id: cron.cron_id, thread_id: cron.thread_id, due: cron.next_run_date },
        'a cron had no run: its thread is busy, and its multitask strategy is "reject"',
      );
    }
  }
}

type Timing = Pick<CronRecord, "schedule" | "timezone" | "enabled" | "end_time">;

/** When a cron fires next after `now`; null if it does not. */
function toNextDate(cron: Timing, now: Date): Date | null {
  const next = parseSchedule(cron.schedule, cron.timezone).next(now);
  if (!cron.enabled || !next || (cron.end_time && next > cron.end_time)) return null;
  return next;
}

/** A cron that is made to do nothing is a mistake. */
function assertComesDue(cron: Timing, now: Date): void {
  const next = parseSchedule(cron.schedule, cron.timezone).next(now);
  if (!next) throw refusal("schedule", `"${cron.schedule}" names a time that never comes`);
  if (cron.end_time && next > cron.end_time) {
    throw refusal("end_time", `is before the first time of the schedule, ${next.toISOString()}`);
  }
}

function assertThreadStays(onRunCompleted: unknown): void {
  if (onRunCompleted === undefined) return;
  throw refusal(
    "on_run_completed",
    "is for crons without a thread; the thread of this one stays as it is",
  );
}

function refusal(path: string, message: string): ServerError {
  return new ServerError("invalid_request", `${path}: ${message}`, {
    details: [{ path, message }],
  });
}

function toChange(cron: CronRecord, patch: CronPatch, now: Date): CronChange {
  if (cron.thread_id !== null) assertThreadStays(patch.on_run_completed);
  const timing: Timing = {
    schedule: patch.schedule ?? cron.schedule,
    timezone: patch.timezone ?? cron.timezone,
    enabled: patch.enabled ?? cron.enabled,
    end_time: patch.end_time === undefined ? cron.end_time : patch.end_time,
  };
  const retimed =
    timing.schedule !== cron.schedule ||
    timing.timezone !== cron.timezone ||
    timing.enabled !== cron.enabled ||
    timing.end_time?.getTime() !== cron.end_time?.getTime();
  // An end may well lie in the past: that is how a cron is stopped.
  if (retimed) assertComesDue({ ...timing, end_time: null }, now);
  return {
    ...timing,
    on_run_completed: patch.on_run_completed ?? cron.on_run_completed,
    payload: { ...cron.payload, ...toPayload(patch) },
    metadata: { ...cron.metadata, ...patch.metadata },
    next_run_date: retimed ? toNextDate(timing, now) : cron.next_run_date,
  };
}

/** The run fields that were given. */
function toPayload(body: CronCreate | CronPatch): CronRecord["payload"] {
  return CronPayload.parse(body);
}

/** The run that a cron asks for each time. */
export function toCronRun(cron: {
  assistant_id: string;
  payload: CronRecord["payload"];
  metadata: CronRecord["metadata"];
  on_run_completed?: CronRecord["on_run_completed"] | undefined;
}): RunCreate {
  return RunCreate.parse({
    // A time that is due while the last run still goes on is not lost.
    multitask_strategy: "enqueue",
    ...cron.payload,
    assistant_id: cron.assistant_id,
    metadata: cron.metadata,
    on_completion: cron.on_run_completed ?? undefined,
  });
}

/** The request for such a run, as if who made the cron had sent it. */
function toRequest({ user_id, origin }: CronRecord): RunRequest {
  const principal: Principal | undefined =
    user_id === null
      ? undefined
      : {
          identity: user_id,
          permissions: origin.permissions ?? [],
          user: origin.user as Principal["user"],
        };
  return {
    principal,
    headers: new Headers(),
    baseUrl: origin.base_url,
    trigger: "cron",
    // They were asked when the cron was made.
    threadFilter: undefined,
    assistantFilter: async () => undefined,
  };
}
