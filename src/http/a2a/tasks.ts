import { TaskState, type Artifact, type Task, type TaskStatus } from "@a2a-js/sdk";
import type { RunRecord } from "../../storage/run-record.ts";
import {
  agentMessage,
  dataPart,
  isAgent,
  textPart,
  toHistory,
  toText,
  type GraphMessage,
  type TaskPlace,
} from "./messages.ts";

/** The runs of a task: the one that began it, and the one that carries it on after the latest answer. */
export interface TaskRuns {
  first: RunRecord;
  latest: RunRecord;
  /** Whether the latest run's question is still open. */
  waits: boolean;
}

export function toPlace({ first }: TaskRuns): TaskPlace {
  return { taskId: first.run_id, contextId: first.thread_id };
}

/** A task as A2A has it, with at most `historyLength` messages, the latest ones. */
export function toTask(runs: TaskRuns, historyLength: number | undefined): Task {
  const place = toPlace(runs);
  const history = toHistory(ownMessages(runs), place);
  const artifact = toArtifact(runs);
  return {
    id: place.taskId,
    contextId: place.contextId,
    status: toStatus(runs),
    artifacts: artifact ? [artifact] : [],
    history:
      historyLength === undefined ? history : history.slice(-historyLength || history.length),
    metadata: { run_id: runs.latest.run_id },
  };
}

export function toStatus(runs: TaskRuns): TaskStatus {
  const { latest } = runs;
  const state = toState(runs);
  const id = `${latest.run_id}-${TaskState[state]}`;
  const parts =
    state === TaskState.TASK_STATE_INPUT_REQUIRED
      ? questionsOf(latest).map(({ value }) =>
          typeof value === "string" ? textPart(value) : dataPart(value),
        )
      : latest.error && [textPart(latest.error.message)];
  return {
    state,
    message: parts && parts.length > 0 ? agentMessage(id, parts, toPlace(runs)) : undefined,
    timestamp: latest.updated_at.toISOString(),
  };
}

export function toState({ latest, waits }: TaskRuns): TaskState {
  switch (latest.status) {
    case "pending":
      return TaskState.TASK_STATE_SUBMITTED;
    case "running":
      return TaskState.TASK_STATE_WORKING;
    case "success":
      if (!latest.interrupted) return TaskState.TASK_STATE_COMPLETED;
      // A question that the conversation has passed over will not be answered any more.
      return waits ? TaskState.TASK_STATE_INPUT_REQUIRED : TaskState.TASK_STATE_CANCELED;
    case "interrupted":
      return TaskState.TASK_STATE_CANCELED;
    case "error":
    case "timeout":
      return TaskState.TASK_STATE_FAILED;
  }
}

/** Nothing more will come of a task in this state without a further message. */
export function isAtRest(state: TaskState): boolean {
  return state !== TaskState.TASK_STATE_SUBMITTED && state !== TaskState.TASK_STATE_WORKING;
}

/** The result of a completed task: the agent's last words, or the whole output of a graph without messages. */
export function toArtifact(runs: TaskRuns): Artifact | undefined {
  if (toState(runs) !== TaskState.TASK_STATE_COMPLETED) return undefined;
  const { output } = runs.latest;
  if (!Array.isArray(messagesOf(output))) return responseArtifact(runs, [dataPart(output ?? {})]);
  const text = toText(ownMessages(runs).findLast(isAgent)?.content);
  return text === "" ? undefined : responseArtifact(runs, [textPart(text)]);
}

/** The one artifact of a task, which a stream builds up and the finished task holds. */
export function responseArtifact({ first }: TaskRuns, parts: Artifact["parts"]): Artifact {
  return {
    artifactId: `${first.run_id}-response`,
    name: "Response",
    description: "",
    parts,
    metadata: undefined,
    extensions: [],
  };
}

/** The messages of a task: those of its conversation from the one that began it. */
function ownMessages({ first, latest }: TaskRuns): GraphMessage[] {
  const asked = messagesOf(first.kwargs.input) ?? [];
  const all = messagesOf(latest.output) ?? messagesOf(first.output) ?? asked;
  const begun = all.findIndex(({ id }) => id !== undefined && id === asked[0]?.id);
  return begun < 0 ? all : all.slice(begun);
}

function messagesOf(values: unknown): GraphMessage[] | undefined {
  const messages = (values as { messages?: unknown } | null | undefined)?.messages;
  return Array.isArray(messages) ? (messages as GraphMessage[]) : undefined;
}

/** What the graph of a run asked before it stopped. */
export function questionsOf(run: RunRecord): { id?: unknown; value?: unknown }[] {
  const { __interrupt__: asked } = (run.output ?? {}) as {
    __interrupt__?: { id?: unknown; value?: unknown }[];
  };
  return asked ?? [];
}
