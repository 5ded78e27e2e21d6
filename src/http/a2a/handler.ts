import {
  Role,
  TaskState,
  type AgentCard,
  type ListTasksResponse,
  type Message,
  type SendMessageRequest,
  type StreamResponse,
  type Task,
} from "@a2a-js/sdk";
import {
  ContentTypeNotSupportedError,
  ExtendedAgentCardNotConfiguredError,
  PushNotificationNotSupportedError,
  RequestMalformedError,
  TaskNotCancelableError,
  TaskNotFoundError,
  UnsupportedOperationError,
} from "@a2a-js/sdk/errors";
import type { A2ARequestHandler } from "@a2a-js/sdk/server";
import { v7 as uuid7 } from "@langchain/core/utils/uuid";
import type { AssistantGraphs } from "../../engine/assistants.ts";
import type { RunEngine } from "../../engine/runs.ts";
import type { Assistant } from "../../protocol/assistants.ts";
import { Uuid } from "../../protocol/common.ts";
import type { Filter } from "../../protocol/filters.ts";
import { RunCreate } from "../../protocol/runs.ts";
import type { RunRecord } from "../../storage/run-record.ts";
import type { RunRepository } from "../../storage/runs.ts";
import type { ThreadRepository } from "../../storage/threads.ts";
import { startRun, type Caller } from "../start-run.ts";
import { toGraphInput, toResume } from "./messages.ts";
import { toTaskStream } from "./stream.ts";
import { isAtRest, questionsOf, toState, toTask, type TaskRuns } from "./tasks.ts";

const MAX_TASKS_PAGE = 100;
/** How many runs of one conversation are looked through for its tasks. */
const MAX_RUNS = 1_000;

export interface A2aHandlerOptions {
  assistant: Assistant;
  card: AgentCard;
  caller: Caller;
  engine: RunEngine;
  runs: RunRepository;
  threads: ThreadRepository;
  drawings: AssistantGraphs;
  /** Aborted when the client is gone. */
  signal: AbortSignal;
}

/**
 * One assistant as an A2A agent, for one request. A task is a run, a context its thread. A question of the
 * graph leaves a task waiting for input; the message that answers it starts another run of the same task.
 */
export class A2aHandler implements A2ARequestHandler {
  readonly #options: A2aHandlerOptions;

  constructor(options: A2aHandlerOptions) {
    this.#options = options;
  }

  async getAgentCard(): Promise<AgentCard> {
    return this.#options.card;
  }

  async sendMessage(params: SendMessageRequest): Promise<Task> {
    const wait = !params.configuration?.returnImmediately;
    const run = await this.#start(params, { stream: !wait });
    if (wait) await this.#options.engine.wait(run.latest, this.#options.signal);
    const task = wait ? await this.#load(run.first.run_id) : run;
    return toTask(task, params.configuration?.historyLength);
  }

  async *sendMessageStream(
    params: SendMessageRequest,
  ): AsyncGenerator<StreamResponse, void, undefined> {
    const runs = await this.#start(params, { stream: true });
    yield* this.#follow(runs, params.configuration?.historyLength);
  }

  async *resubscribe({ id }: { id: string }): AsyncGenerator<StreamResponse, void, undefined> {
    const runs = await this.#find(id, "threads:read");
    if (isAtRest(toState(runs))) {
      throw new UnsupportedOperationError(
        `Task ${id} is not being worked on, so there is nothing to follow.`,
      );
    }
    yield* this.#follow(runs, undefined);
  }

  async getTask(params: { id: string; historyLength?: number | undefined }): Promise<Task> {
    return toTask(await this.#find(params.id, "threads:read"), params.historyLength);
  }

  async cancelTask({ id }: { id: string }): Promise<Task> {
    const runs = await this.#find(id, "threads:update");
    if (isAtRest(toState(runs))) {
      throw new TaskNotCancelableError(`Task ${id} is not being worked on.`);
    }
    await this.#options.engine.cancel(runs.latest, "interrupt", { wait: true, reason: "user" });
    return toTask(await this.#load(id), undefined);
  }

  async listTasks(params: {
    contextId: string;
    status: TaskState;
    pageSize?: number | undefined;
    pageToken: string;
    historyLength?: number | undefined;
    statusTimestampAfter: string | undefined;
  }): Promise<ListTasksResponse> {
    if (params.contextId === "") {
      throw new UnsupportedOperationError("Tasks are listed by context: name a contextId.");
    }
    const contextId = toContext(params.contextId);
    const { caller, threads, runs } = this.#options;
    const { filter } = await caller.authorize("threads:search", { thread_id: contextId });
    const isThere = (await threads.get(contextId, filter)) !== undefined;
    const all = isThere ? await runs.list(contextId, { limit: MAX_RUNS, offset: 0 }) : [];
    const after = params.statusTimestampAfter ? new Date(params.statusTimestampAfter) : undefined;
    const own = all.filter((run) => this.#isOwn(run) && run.resumed_from === null);
    const tasks = (await Promise.all(own.map((run) => this.#withAnswers(run)))).filter(
      (task) =>
        (params.status === TaskState.TASK_STATE_UNSPECIFIED || toState(task) === params.status) &&
        (after === undefined || task.latest.updated_at >= after),
    );
    const offset = Number(params.pageToken || 0);
    const pageSize = Math.min(params.pageSize ?? 50, MAX_TASKS_PAGE);
    const next = offset + pageSize;
    return {
      tasks: tasks.slice(offset, next).map((task) => toTask(task, params.historyLength)),
      nextPageToken: next < tasks.length ? String(next) : "",
      pageSize,
      totalSize: tasks.length,
    };
  }

  async getAuthenticatedExtendedAgentCard(): Promise<never> {
    throw new ExtendedAgentCardNotConfiguredError();
  }

  async createTaskPushNotificationConfig(): Promise<never> {
    throw new PushNotificationNotSupportedError();
  }

  async getTaskPushNotificationConfig(): Promise<never> {
    throw new PushNotificationNotSupportedError();
  }

  async listTaskPushNotificationConfigs(): Promise<never> {
    throw new PushNotificationNotSupportedError();
  }

  async deleteTaskPushNotificationConfig(): Promise<never> {
    throw new PushNotificationNotSupportedError();
  }

  /** Starts the run for a message: of a task of its own, or of the one whose question it answers. */
  async #start(params: SendMessageRequest, { stream }: { stream: boolean }): Promise<TaskRuns> {
    const message = toMessage(params);
    const common = {
      assistant_id: this.#options.assistant.assistant_id,
      metadata: params.metadata ?? {},
      multitask_strategy: "enqueue",
      stream_mode: stream ? ["values", "messages-tuple"] : "values",
    };
    if (message.taskId !== "") return this.#answer(message, common);
    const input = toGraphInput(message);
    if ("messages" in input) await this.#assertTakesMessages();
    const threadId = message.contextId === "" ? uuid7() : toContext(message.contextId);
    const run = await this.#create(threadId, { ...common, input, if_not_exists: "create" });
    return { first: run, latest: run, waits: false };
  }

  async #answer(message: Message, common: object): Promise<TaskRuns> {
    const { first, latest, waits } = await this.#find(message.taskId, "threads:read");
    if (message.contextId !== "" && message.contextId !== first.thread_id) {
      throw new RequestMalformedError(`Task ${message.taskId} is of another context.`);
    }
    if (!waits) {
      throw new UnsupportedOperationError(
        `Task ${message.taskId} does not wait for input. Send the contextId alone to begin another task.`,
      );
    }
    const command = { resume: toResume(message) };
    const run = await this.#create(latest.thread_id, { ...common, command });
    return { first, latest: run, waits: false };
  }

  #create(threadId: string, body: object): Promise<RunRecord> {
    const { engine, caller } = this.#options;
    return startRun(engine, caller, { threadId, body: RunCreate.parse(body), trigger: "a2a" });
  }

  #follow(runs: TaskRuns, historyLength: number | undefined) {
    const { engine, signal } = this.#options;
    return toTaskStream(runs, {
      events: engine.events(runs.latest, -1, signal),
      ended: () => engine.wait(runs.latest, signal).then(() => this.#load(runs.first.run_id)),
      historyLength,
      signal,
    });
  }

  /** A task that the caller may have to do with. */
  async #find(taskId: string, event: "threads:read" | "threads:update"): Promise<TaskRuns> {
    const id = Uuid.safeParse(taskId).data;
    const found = id === undefined ? undefined : await this.#options.runs.get(id, undefined);
    if (!found || !this.#isOwn(found)) throw new TaskNotFoundError(`Task not found: ${taskId}`);
    const { authorize } = this.#options.caller;
    const { filter } = await authorize(event, { thread_id: found.thread_id });
    return this.#load(found.run_id, filter);
  }

  async #load(taskId: string, filter?: Filter): Promise<TaskRuns> {
    const run = await this.#options.runs.get(taskId, filter);
    if (!run) throw new TaskNotFoundError(`Task not found: ${taskId}`);
    return this.#withAnswers(run);
  }

  async #withAnswers(first: RunRecord): Promise<TaskRuns> {
    let latest = first;
    while (latest.interrupted) {
      const next = await this.#options.runs.resumedBy(latest);
      if (!next) return { first, latest, waits: await this.#isOpen(latest) };
      latest = next;
    }
    return { first, latest, waits: false };
  }

  /** Whether the thread still has a question of the run: a later run may have gone past it. */
  async #isOpen(run: RunRecord): Promise<boolean> {
    const thread = await this.#options.threads.get(run.thread_id, undefined);
    const asked = questionsOf(run).map(({ id }) => id);
    const open = Object.values(thread?.interrupts ?? {}).flat() as { id?: unknown }[];
    return open.some(({ id }) => asked.includes(id));
  }

  #isOwn(run: RunRecord): boolean {
    return run.assistant_id === this.#options.assistant.assistant_id && !run.temporary;
  }

  async #assertTakesMessages(): Promise<void> {
    const { input_schema: schema } = await this.#options.drawings.schemas(this.#options.assistant);
    const { properties } = (schema ?? {}) as { properties?: object };
    if (!properties || "messages" in properties) return;
    throw new ContentTypeNotSupportedError(
      `The agent "${this.#options.assistant.graph_id}" takes no text: its input has no field "messages". Send a data part with its fields: ${Object.keys(properties).join(", ")}.`,
    );
  }
}

/** The message of a request, after refusing what this server would not heed. */
function toMessage({ message, configuration, tenant }: SendMessageRequest): Message {
  if (!message || message.parts.length === 0) {
    throw new RequestMalformedError("message: needs at least one part");
  }
  if (message.role !== Role.ROLE_USER) {
    throw new RequestMalformedError("message.role: must be the user's");
  }
  if (tenant !== "") throw new RequestMalformedError("tenant: this server has none");
  if (configuration?.taskPushNotificationConfig) throw new PushNotificationNotSupportedError();
  const accepted = configuration?.acceptedOutputModes ?? [];
  if (accepted.length > 0 && !accepted.some((mode) => /^(text|application|\*)\//.test(mode))) {
    throw new ContentTypeNotSupportedError(
      `This agent answers text/plain and application/json, not ${accepted.join(", ")}.`,
    );
  }
  return message;
}

function toContext(contextId: string): string {
  const parsed = Uuid.safeParse(contextId);
  if (parsed.success) return parsed.data;
  throw new RequestMalformedError("contextId: must be a UUID; leave it out for a new one");
}
