import { ABSENT, type Difference } from "./compare.ts";

/** A difference from the official dev server that is wanted. `docs/compatibility.md` lists the same ids. */
export interface Intended {
  /** Kebab-case; the same in the document. */
  id: string;
  reason: string;
  /** Where it shows; see `matches`. */
  at: string[];
  /** Whether it is this difference, where the place alone does not tell. */
  when?: (difference: Difference) => boolean;
}

const added = ({ official }: Difference): boolean => official === ABSENT;
const left = ({ ours }: Difference): boolean => ours === ABSENT;
const text = (value: unknown): string => (typeof value === "string" ? value : "");

const errors: readonly Intended[] = [
  {
    id: "json-everywhere",
    reason: "Every body is JSON and says so; the dev server sends errors and waits as text/plain.",
    at: ["**/headers/content-type"],
    when: ({ official, ours }) =>
      text(official).startsWith("text/plain") && ours === "application/json",
  },
  {
    id: "problem-details",
    reason: "An error is an object with `detail`, a `code` for programs and a `request_id`.",
    at: ["*/*/body/code", "*/*/body/request_id"],
    when: added,
  },
  {
    id: "problem-details-in-the-client",
    reason: "The official client puts the whole error body into its message, which is JSON here.",
    at: ["unknown ids/by the client/thrown/message"],
  },
  {
    id: "validation-is-422",
    reason: "As on the platform: 422 and one message per field, where the dev server sends 400.",
    at: [
      "invalid */*/status",
      "invalid */*/body/**",
      "invalid bodies/by the client/thrown/*",
      "a state update on a new thread/update/status",
    ],
    when: ({ at, official, ours }) =>
      (!at.endsWith("/status") || (official === 400 && ours === 422)) &&
      !at.startsWith("invalid paths/no "),
  },
  {
    id: "errors-say-more",
    reason: "Where the dev server has a message it comes first, and then what to do.",
    at: ["*/*/body/detail", "unknown ids/patch/body/detail"],
    when: ({ at, official, ours }) =>
      (official !== ABSENT && text(ours).startsWith(text(official).replace(/\.$/, ""))) ||
      at.startsWith("unknown ids/patch"),
  },
  {
    id: "unknown-is-404",
    reason:
      "What is not there is 404: a thread to run on (there: 422, as if it were busy), a run to join (there: 200), a graph of a new assistant, a checkpoint.",
    at: [
      "a thread made by the run/without leave/**",
      "unknown ids/run on it/**",
      "unknown ids/join/**",
      "unknown ids/assistant of a graph/**",
      "a history/at a place that is not/**",
    ],
  },
  {
    id: "graph-refusals-are-422",
    reason: "A state update the graph refuses is the client's mistake, not an error of the server.",
    at: [
      "a state, updated/as an unknown node/*",
      "a state, updated/as an unknown node/body/detail",
    ],
    when: ({ official }) => official === 500 || official === "Internal Server Error",
  },
  {
    id: "unsupported-fields-are-refused",
    reason: "The dev server drops fields it does not know; here they are named in a 422.",
    at: ["invalid bodies/an unknown field/**"],
  },
  {
    id: "unknown-routes",
    reason: "A wrong method is 405 and names the right ones; an unknown route is named.",
    at: [
      "invalid paths/no *//**",
      "invalid paths/no method/status",
      "invalid paths/no */body/detail",
    ],
  },
];

const streams: readonly Intended[] = [
  {
    id: "stream-headers",
    reason: "Streams are never stored by anybody, and say that they are UTF-8.",
    at: ["**/headers/cache-control", "**/headers/content-type"],
    when: ({ ours }) => ours === "no-store" || ours === "text/event-stream; charset=utf-8",
  },
  {
    id: "location-headers",
    reason:
      "`Location` on every stream, so that the official client can reconnect, and both headers wherever a run is followed.",
    at: ["**/headers/location", "**/headers/content-location"],
    when: added,
  },
  {
    id: "kept-thread-in-location",
    reason: "A run without a thread that keeps one says which: its path leads through the thread.",
    at: ["a run without a thread that keeps one/wait/headers/content-location"],
  },
  {
    id: "event-ids-without-a-thread",
    reason: "Every event has an id, also without a thread, so that a stream can be continued.",
    at: ["* without a thread/stream/events/*/id", "* without a thread/stream/events/*/*/id"],
    when: added,
  },
  {
    id: "late-readers",
    reason: "Whoever reads a finished run without a thread still gets its events.",
    at: ["stream without a thread/again/events/**"],
    when: added,
  },
  {
    id: "only-asked-modes",
    reason:
      "With subgraphs the dev server adds `checkpoints` events nobody asked for; the other events' ids shift.",
    at: ["* with subgraphs/stream/events/**", "values of a subgraph's interrupt/stream/events/**"],
    when: ({ at, ours }) =>
      (/\/events\/checkpoints[^/]*$/.test(at) && ours === ABSENT) ||
      at.endsWith("/id") ||
      at.endsWith("checkpoint_ns"),
  },
  {
    id: "complete-messages-of-subgraphs",
    reason: "`messages/complete` also comes with subgraphs; the dev server loses it there.",
    at: ["messages of delegate with subgraphs/stream/events/messages/complete*"],
    when: added,
  },
  {
    id: "models-stream-when-asked",
    reason:
      "Chat models stream only in modes that show tokens, which is faster; elsewhere their message is not put together from chunks and has no `tool_call_chunks`.",
    at: ["**/tool_call_chunks"],
    when: left,
  },
  {
    id: "names-of-subgraphs",
    reason: "In `debug` the config of a subgraph's checkpoint may name it.",
    at: [
      "debug of * with subgraphs/stream/**/config/run_name",
      "debug of * with subgraphs/stream/**/parent_config/run_name",
    ],
    when: added,
  },
  {
    id: "interrupted-waits-have-values",
    reason: "A wait that ends at an interrupt has the values reached beside `__interrupt__`.",
    at: ["*/*/body/input", "*/*/body/trail"],
    when: added,
  },
  {
    id: "failures-have-their-name",
    reason:
      "`__error__` has the error's own name and message; there it is `Error` with the rest as JSON in a string.",
    at: ["*/*/body/__error__/*", "wait without a thread for a failure/the client/thrown/message"],
  },
  {
    id: "joins-tell-failures",
    reason: "A join of a failed run answers `__error__`, as a wait does; there it gives the state.",
    at: ["join a failed run/*/value/**", "join a failed run/join/body/**"],
  },
];

const resources: readonly Intended[] = [
  {
    id: "no-platform-metadata",
    reason: "Metadata has no plan, host and version of the platform.",
    at: ["**/langgraph_plan", "**/langgraph_host", "**/langgraph_version"],
    when: left,
  },
  {
    id: "checkpoint-metadata",
    reason:
      "A checkpoint's metadata has the ids and the run's metadata, not every setting and header of the request nor LangGraph's internals.",
    at: ["**/metadata/**"],
    when: (difference) =>
      left(difference) &&
      /\/(ls_integration|user-agent|flavour|checkpoint_id|checkpoint_map|checkpoint_ns|langgraph_(checkpoint_ns|node|path|step|triggers))$/.test(
        difference.at,
      ),
  },
  {
    id: "headers-are-not-kept",
    reason: "Request headers reach the graph, and are not shown in the thread's config.",
    at: ["**/config/configurable/user-agent"],
    when: left,
  },
  {
    id: "more-fields",
    reason:
      "Fields the platform has and the dev server leaves out; null or empty where there is nothing to tell.",
    at: [
      "**/state_updated_at",
      "**/error",
      "**/values",
      "**/interrupts",
      "**/cancel_reason",
      "**/score",
      "a thread/empty state/body/metadata",
      "wait without input/state/body/metadata",
    ],
    when: (difference) => added(difference) && difference.at !== "cancel/thread/body/values",
  },
  {
    id: "updates-name-their-graph",
    reason: "A checkpoint that a client wrote says of which graph it is, as a run's does.",
    at: [
      "a thread with a history*/*/body/metadata/graph_id",
      "a thread with a history*/*/body/*/metadata/graph_id",
    ],
    when: added,
  },
  {
    id: "questions-of-runs",
    reason:
      "A run says which run's question it answers, and which questions it went past without an answer.",
    at: [
      "**/body/resumed_from",
      "**/body/dropped_interrupts",
      "**/body/*/resumed_from",
      "**/body/*/dropped_interrupts",
    ],
    when: added,
  },
  {
    id: "kwargs-are-the-clients",
    reason: "A run's `kwargs` show what the client asked for, without what the server adds.",
    at: ["**/kwargs/**"],
  },
  {
    id: "interrupts-only-where-there-are",
    reason: "A thread's `interrupts` name only tasks that ask something.",
    at: ["*/*/body/interrupts/*"],
    when: (difference) =>
      left(difference) && Array.isArray(difference.official) && difference.official.length === 0,
  },
  {
    id: "thread-follows-its-state",
    reason:
      "A thread's values, interrupts and status are those of its state, also after a cancel, a failure or an update of the state.",
    at: [
      "cancel/thread/body/values",
      "wait for a graph that never ends/thread/body/values/**",
      "a state, updated/thread/body/interrupts/*",
      "a thread with a history*/create/body/status",
    ],
  },
  {
    id: "task-errors-are-messages",
    reason: "A failed task of a state has the error's message; there it is the error as JSON.",
    at: ["*/state/body/tasks/*/error"],
    when: ({ official, ours }) => text(official).includes(`"message":"${text(ours)}"`),
  },
  {
    id: "subgraph-checkpoints",
    reason:
      "A task that is a subgraph says at which checkpoint it is, also where its state is shown.",
    at: [
      "resume a subgraph/state/body/tasks/*/checkpoint",
      "a subgraph's state/after/body/tasks/*/checkpoint",
    ],
  },
  {
    id: "deleted-runs-leave-their-state",
    reason: "Deleting a run does not take back what it did; a roll back does.",
    at: ["a background run/thread after/**"],
  },
  {
    id: "roll-back",
    reason: "A roll back removes the running run with its checkpoints; the dev server leaves both.",
    at: ["roll back/run/**", "roll back/state/**"],
  },
  {
    id: "runs-after-a-fork",
    reason: "A run from an older checkpoint does not make every later run fork from it.",
    at: ["a run from an older checkpoint/and the next run/body/trail/*"],
  },
  {
    id: "ids-of-none",
    reason: "A search for an empty list of ids finds nothing.",
    at: ["threads, searched/none by their ids/body/**"],
    when: left,
  },
  {
    id: "settings-of-a-thread",
    reason: "A change of an assistant reaches the threads it has run on.",
    at: ["settings of a thread/after a change/body/**"],
  },
  {
    id: "runs-have-their-own-metadata",
    reason: "A run has its own graph's metadata, also on a thread another graph runs on.",
    at: ["a run on a busy thread/*/body/metadata/*", "cancel a waiting run/run/body/metadata/*"],
  },
  {
    id: "pagination",
    reason:
      "`X-Pagination-Total` is the number of all matches, `X-Pagination-Next` is there if more follow.",
    at: ["**/headers/x-pagination-*"],
  },
  {
    id: "store-order",
    reason:
      "A search of the store gives the items written last first, as LangGraph's PostgresStore does.",
    at: ["store items/search/body/items/**"],
  },
  {
    id: "info",
    reason: "`/info` tells about this server.",
    at: ["meta/info/body/**"],
  },
  {
    id: "cors",
    reason: "Browsers may read every header clients need.",
    at: ["another origin/*/headers/*"],
  },
];

const protocol: readonly Intended[] = [
  {
    id: "protocol-messages-have-nodes",
    reason: "A `messages` event of the v2 protocol names its node, as the protocol's types say.",
    at: ["protocol: */events/*/node", "protocol: */after/*/node"],
    when: added,
  },
  {
    id: "protocol-failures-are-told",
    reason: "The `error` of a failed run is what was thrown; there it is a JSON of it in a string.",
    at: ["protocol: a failure/events/*/data/error"],
  },
  {
    id: "protocol-unknown-commands",
    reason: "An unknown command is one on every thread; there, without a run it is `no_such_run`.",
    at: ["protocol: refusals/unknown command/error"],
  },
];

export const INTENDED: readonly Intended[] = [...errors, ...streams, ...resources, ...protocol];
