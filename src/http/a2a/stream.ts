import { TaskState, type StreamResponse } from "@a2a-js/sdk";
import type { RunEvent } from "../../protocol/runs.ts";
import { isAgent, textPart, toText, type GraphMessage } from "./messages.ts";
import { responseArtifact, toArtifact, toPlace, toStatus, toTask, type TaskRuns } from "./tasks.ts";

/**
 * A task as it comes: the task, that it is worked on, the response word by word, and at the end the response
 * whole and what became of the task.
 */
export async function* toTaskStream(
  runs: TaskRuns,
  given: {
    events: AsyncGenerator<RunEvent[], void, void>;
    ended: () => Promise<TaskRuns>;
    historyLength: number | undefined;
    signal: AbortSignal;
  },
): AsyncGenerator<StreamResponse, void, undefined> {
  yield { payload: { $case: "task", value: toTask(runs, given.historyLength) } };
  const words = new ResponseWords(runs);
  let began = false;
  for await (const batch of given.events) {
    if (!began) yield toWorking(runs);
    began = true;
    for (const event of batch) {
      const update = words.take(event);
      if (update) yield update;
    }
  }
  if (given.signal.aborted) return;
  const ended = await given.ended();
  const artifact = toArtifact(ended);
  if (artifact) {
    const value = { ...toPlace(ended), artifact, append: false, lastChunk: true };
    yield { payload: { $case: "artifactUpdate", value: { ...value, metadata: undefined } } };
  }
  const status = toStatus(ended);
  yield {
    payload: {
      $case: "statusUpdate",
      value: { ...toPlace(ended), status, metadata: { run_id: ended.latest.run_id } },
    },
  };
}

function toWorking(runs: TaskRuns): StreamResponse {
  const status = {
    state: TaskState.TASK_STATE_WORKING,
    message: undefined,
    timestamp: new Date().toISOString(),
  };
  return {
    payload: { $case: "statusUpdate", value: { ...toPlace(runs), status, metadata: undefined } },
  };
}

/** The words of the agent as updates of the response. A further message of the agent takes the place of the last. */
class ResponseWords {
  readonly #runs: TaskRuns;
  #messageId: string | undefined;

  constructor(runs: TaskRuns) {
    this.#runs = runs;
  }

  take({ event, data }: RunEvent): StreamResponse | undefined {
    if (event !== "messages") return undefined;
    const [message] = JSON.parse(data) as [GraphMessage];
    const text = toText(message.content);
    if (text === "" || !isAgent(message)) return undefined;
    const id = message.id ?? "";
    const append = id === this.#messageId;
    this.#messageId = id;
    const artifact = responseArtifact(this.#runs, [textPart(text)]);
    const value = { ...toPlace(this.#runs), artifact, append, lastChunk: false };
    return { payload: { $case: "artifactUpdate", value: { ...value, metadata: undefined } } };
  }
}
