import { randomUUID } from "node:crypto";
import type { Client } from "@langchain/langgraph-sdk";
import type { Random } from "./random.ts";
import type { Kind, RunView } from "./views.ts";

/** How a client asks for a run and learns of its end. */
const WAYS = ["stream", "wait", "background", "late reader"] as const;
type Way = (typeof WAYS)[number];

const GRAPH = "talk";
const MODES = ["values", "updates", "messages-tuple", "custom"] as const;
/** Longer than a lease, a recovery and a busy queue together. */
const PATIENCE_MS = 120_000;
const AGAIN_MS = 200;
/** For how long a run whose request got no answer is looked for. */
const LOOK_FOR_MS = 3_000;

/** What one client did and saw. */
export interface Conversation {
  views: RunView[];
  /** Requests for runs that got no answer, and no run of theirs was found by then. */
  unanswered: string[];
  /** Runs that a client waited for in vain. */
  stuck: string[];
}

export interface ConversationOptions {
  client: Client;
  random: Random;
  /** Between two turns, at most. */
  pauseMs: number;
  until: () => boolean;
  /** Is called for each run that was followed to its end. */
  onRun: () => void;
}

/**
 * One client: turn after turn on a thread, each in another way, until the time is over. After a request that got no
 * answer it begins another thread, as nobody knows whether the run is still to come.
 */
export class Talker {
  readonly #options: ConversationOptions;
  readonly #seen: Conversation = { views: [], unanswered: [], stuck: [] };
  #thread = "";
  #turns = 0;

  constructor(options: ConversationOptions) {
    this.#options = options;
  }

  async talk(): Promise<Conversation> {
    const { random, until, pauseMs } = this.#options;
    await this.#newThread();
    while (!until()) {
      const sure = await this.#turn();
      if (!sure || this.#turns >= 25) await this.#newThread();
      await sleep(random.between(0, pauseMs));
    }
    return this.#seen;
  }

  /** False if nobody knows whether a run is still to come. */
  async #turn(): Promise<boolean> {
    const { random } = this.#options;
    const dice = random.next();
    if (dice < 0.1) return this.#cancelled();
    if (dice < 0.2) {
      // Two at once: the second one waits for the first.
      const views = await Promise.all([this.#run("talk"), this.#run("talk")]);
      return views.every(Boolean);
    }
    if (dice < 0.75) return this.#run("talk");
    return (await this.#run("ask")) && (await this.#run("resume"));
  }

  async #newThread(): Promise<void> {
    const threadId = randomUUID();
    await this.#insist(
      () => this.#options.client.threads.create({ threadId, ifExists: "do_nothing" }),
      `thread ${threadId}`,
    );
    this.#thread = threadId;
    this.#turns = 0;
  }

  async #run(kind: Kind, way: Way = this.#options.random.pick(WAYS)): Promise<boolean> {
    const view = this.#view(kind, way);
    const from = performance.now();
    try {
      await this.#begin(view, way);
    } catch {
      // Whatever went wrong: what counts is whether the run is there.
    }
    if (view.run_id === undefined && !(await this.#find(view))) return false;
    if (view.follows) await this.#follow(view);
    else if (view.answer === undefined) await this.#join(view);
    view.elapsedMs = performance.now() - from;
    this.#options.onRun();
    return true;
  }

  async #cancelled(): Promise<boolean> {
    const { client, random } = this.#options;
    const view = this.#view("cancel", "background");
    try {
      await this.#create(view);
    } catch {
      if (!(await this.#find(view))) return false;
    }
    await sleep(random.between(0, 150));
    await this.#insist(
      () => client.runs.cancel(view.thread_id, view.run_id!, true),
      `cancel of ${view.run_id}`,
    );
    await this.#join(view);
    return true;
  }

  #view(kind: Kind, way: Way): RunView {
    this.#turns += 1;
    const view: RunView = {
      turn: `${this.#thread.slice(0, 8)}/${this.#turns}`,
      kind,
      thread_id: this.#thread,
      run_id: undefined,
      follows: way === "stream" || way === "late reader",
      events: [],
      reconnects: 0,
      answer: undefined,
      elapsedMs: 0,
    };
    this.#seen.views.push(view);
    return view;
  }

  async #begin(view: RunView, way: Way): Promise<void> {
    const { client, random } = this.#options;
    switch (way) {
      case "stream":
        for await (const part of client.runs.stream(view.thread_id, GRAPH, this.#payload(view)))
          note(view, part);
        return;
      case "wait": {
        const { streamMode: _, streamResumable: __, ...payload } = this.#payload(view);
        view.answer = await client.runs.wait(view.thread_id, GRAPH, {
          ...payload,
          raiseError: false,
        });
        return;
      }
      case "late reader":
        await this.#create(view);
        await sleep(random.between(0, 300));
        return;
      case "background":
        await this.#create(view);
    }
  }

  async #create(view: RunView): Promise<void> {
    const payload = this.#payload(view);
    const run = await this.#options.client.runs.create(view.thread_id, GRAPH, payload);
    view.run_id = run.run_id;
  }

  #payload(view: RunView) {
    const { kind, turn } = view;
    return {
      ...(kind === "resume"
        ? { command: { resume: "yes" } }
        : { input: { turn, asks: kind === "ask" } }),
      metadata: { turn, kind },
      streamMode: [...MODES],
      streamResumable: true,
      multitaskStrategy: "enqueue" as const,
      onRunCreated: (run: { run_id: string }): void => {
        view.run_id = run.run_id;
      },
    };
  }

  /** Looks for the run of a request that got no answer. */
  async #find(view: RunView): Promise<boolean> {
    const { client } = this.#options;
    const until = Date.now() + LOOK_FOR_MS;
    while (Date.now() < until) {
      const runs = await client.runs.list(view.thread_id, { limit: 100 }).catch(() => []);
      const found = runs.find((run) => run.metadata?.["turn"] === view.turn);
      if (found) {
        view.run_id = found.run_id;
        return true;
      }
      await sleep(AGAIN_MS);
    }
    this.#seen.unanswered.push(view.turn);
    return false;
  }

  /** Reads on behind the last event seen, until the run has ended and its stream was read to the end. */
  async #follow(view: RunView): Promise<void> {
    const { client } = this.#options;
    const until = Date.now() + PATIENCE_MS;
    for (let ended = false; ;) {
      try {
        const last = view.events.at(-1)?.id ?? -1;
        const signal = AbortSignal.timeout(Math.max(1, until - Date.now()));
        const stream = client.runs.joinStream(view.thread_id, view.run_id!, {
          lastEventId: String(last),
          signal,
        });
        for await (const part of stream) note(view, part);
        if (ended && !signal.aborted) return;
        const run = await client.runs.get(view.thread_id, view.run_id!, { signal });
        // What was written between the end of the stream and this look is read once more.
        ended = run.status !== "pending" && run.status !== "running";
      } catch {
        view.reconnects += 1;
        await sleep(AGAIN_MS);
      }
      if (Date.now() > until) {
        this.#seen.stuck.push(`${view.run_id} (${view.turn}): no end of its stream`);
        return;
      }
    }
  }

  async #join(view: RunView): Promise<void> {
    const { client } = this.#options;
    view.answer = await this.#insist(
      (signal) => client.runs.join(view.thread_id, view.run_id!, { signal }),
      `join of ${view.run_id} (${view.turn})`,
    );
  }

  /** Tries again whatever may be done twice. */
  async #insist<T>(
    work: (signal: AbortSignal) => Promise<T>,
    what: string,
  ): Promise<T | undefined> {
    const until = Date.now() + PATIENCE_MS;
    let last: unknown;
    while (Date.now() < until) {
      try {
        return await work(AbortSignal.timeout(Math.max(1, until - Date.now())));
      } catch (error) {
        last = error;
        await sleep(AGAIN_MS);
      }
    }
    this.#seen.stuck.push(`${what}: ${String(last)}`);
    return undefined;
  }
}

function note(view: RunView, part: { id?: string; event: string; data: unknown }): void {
  if (part.id === undefined || part.id === "") return;
  view.events.push({ id: Number(part.id), event: part.event, data: JSON.stringify(part.data) });
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
