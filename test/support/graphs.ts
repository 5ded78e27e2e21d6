import { AIMessage } from "@langchain/core/messages";
import type { RunnableConfig } from "@langchain/core/runnables";
import { FakeListChatModel } from "@langchain/core/utils/testing";
import {
  Annotation,
  Command,
  MessagesAnnotation,
  StateGraph,
  interrupt,
  type LangGraphRunnableConfig,
} from "@langchain/langgraph";
import {
  createGraphRegistry,
  type GraphRegistry,
  type LoadedGraph,
} from "../../src/graphs/registry.ts";

/** State for graphs that only show the way they took. */
export const Trail = Annotation.Root({
  input: Annotation<string>(),
  trail: Annotation<string[]>({ reducer: (left, right) => left.concat(right), default: () => [] }),
});

const step = (name: string) => async () => ({ trail: [name] });

/** Five nodes in a row. */
export const five = new StateGraph(Trail)
  .addNode("one", step("one"))
  .addNode("two", step("two"))
  .addNode("three", step("three"))
  .addNode("four", step("four"))
  .addNode("five", step("five"))
  .addEdge("__start__", "one")
  .addEdge("one", "two")
  .addEdge("two", "three")
  .addEdge("three", "four")
  .addEdge("four", "five")
  .compile();

/** A chat model that answers "Hello there!" letter by letter. */
export const chat = new StateGraph(MessagesAnnotation)
  .addNode("model", async (state: typeof MessagesAnnotation.State, config: RunnableConfig) => {
    const model = new FakeListChatModel({ responses: ["Hello there!"] });
    return { messages: [await model.invoke(state.messages, config)] };
  })
  .addEdge("__start__", "model")
  .compile();

/** Asks before it goes on. */
export const approval = new StateGraph(Trail)
  .addNode("prepare", step("prepare"))
  .addNode("ask", async () => {
    const answer = interrupt({ question: "Go on?" });
    return { trail: [`answer:${String(answer)}`] };
  })
  .addNode("done", step("done"))
  .addEdge("__start__", "prepare")
  .addEdge("prepare", "ask")
  .addEdge("ask", "done")
  .compile();

/** Fails in its second node. */
export const failing = new StateGraph(Trail)
  .addNode("fine", step("fine"))
  .addNode("broken", async () => {
    throw new TypeError("The second node is broken");
  })
  .addEdge("__start__", "fine")
  .addEdge("fine", "broken")
  .compile();

/** Ends with a state that is nested deeper than a database stores. */
export const bottomless = new StateGraph(Trail)
  .addNode("digs", async () => {
    let hole: unknown = "bottom";
    for (let level = 0; level < 1_500; level += 1) hole = [hole];
    return { input: hole as string };
  })
  .addEdge("__start__", "digs")
  .compile();

/** Waits in its second node until it is released by `release`, or the run is aborted. */
export function createGate(): { graph: typeof five; release: () => void; entered: Promise<void> } {
  let release = (): void => {};
  const opened = new Promise<void>((resolve) => {
    release = resolve;
  });
  let enter = (): void => {};
  const entered = new Promise<void>((resolve) => {
    enter = resolve;
  });
  const graph = new StateGraph(Trail)
    .addNode("before", step("before"))
    .addNode("gate", async (_state: typeof Trail.State, config: LangGraphRunnableConfig) => {
      enter();
      await Promise.race([
        opened,
        new Promise((_, reject) => {
          config.signal?.addEventListener("abort", () => reject(new Error("aborted")), {
            once: true,
          });
        }),
      ]);
      return { trail: ["gate"] };
    })
    .addEdge("__start__", "before")
    .addEdge("before", "gate")
    .compile();
  return { graph: graph as unknown as typeof five, release, entered };
}

/** A node that sends custom events. */
export const custom = new StateGraph(Trail)
  .addNode("writer", async (_state: typeof Trail.State, config: LangGraphRunnableConfig) => {
    config.writer?.({ progress: 1 });
    config.writer?.({ progress: 2 });
    return { trail: ["writer"] };
  })
  .addEdge("__start__", "writer")
  .compile();

/** A graph inside a graph. */
export const nested = new StateGraph(Trail)
  .addNode("outer", step("outer"))
  .addNode(
    "child",
    new StateGraph(Trail).addNode("inner", step("inner")).addEdge("__start__", "inner").compile(),
  )
  .addEdge("__start__", "outer")
  .addEdge("outer", "child")
  .compile();

/** Tells what it found in its config. */
export const inspect = new StateGraph(
  Annotation.Root({
    input: Annotation<string>(),
    configurable: Annotation<Record<string, unknown>>(),
    metadata: Annotation<unknown>(),
    context: Annotation<unknown>(),
    tags: Annotation<unknown>(),
    recursionLimit: Annotation<unknown>(),
  }),
)
  .addNode("look", async (_state, config: LangGraphRunnableConfig) => ({
    configurable: Object.fromEntries(
      Object.entries(config.configurable ?? {}).filter(([key]) => !key.startsWith("__")),
    ),
    metadata: config.metadata,
    context: config.context,
    tags: config.tags,
    recursionLimit: config.recursionLimit,
  }))
  .addEdge("__start__", "look")
  .compile();

/** Goes where a command sends it. */
export const routed = new StateGraph(Trail)
  .addNode("start", async () => new Command({ goto: "right", update: { trail: ["start"] } }), {
    ends: ["left", "right"],
  })
  .addNode("left", step("left"))
  .addNode("right", step("right"))
  .addEdge("__start__", "start")
  .compile();

/** Answers from a message that was not streamed. */
export const plain = new StateGraph(MessagesAnnotation)
  .addNode("reply", async (state: typeof MessagesAnnotation.State) => ({
    messages: [new AIMessage({ id: "reply", content: `${state.messages.length} so far` })],
  }))
  .addEdge("__start__", "reply")
  .compile();

/** Two questions at the same time. */
export const twoQuestions = new StateGraph(Trail)
  .addNode("left", async () => ({ trail: [`left:${String(interrupt("Left?"))}`] }))
  .addNode("right", async () => ({ trail: [`right:${String(interrupt("Right?"))}`] }))
  .addEdge("__start__", "left")
  .addEdge("__start__", "right")
  .compile();

/** A question inside a subgraph. */
export const nestedQuestion = new StateGraph(Trail)
  .addNode("outer", step("outer"))
  .addNode(
    "child",
    new StateGraph(Trail)
      .addNode("inner", async () => ({ trail: [`inner:${String(interrupt("Inside?"))}`] }))
      .addEdge("__start__", "inner")
      .compile(),
  )
  .addEdge("__start__", "outer")
  .addEdge("outer", "child")
  .compile();

/** Never ends by itself. */
export const endless = new StateGraph(Trail)
  .addNode("again", step("again"))
  .addEdge("__start__", "again")
  .addEdge("again", "again")
  .compile();

/** A graph of one node, which does this. */
export function single(
  work: (state: typeof Trail.State, config: LangGraphRunnableConfig) => unknown,
): typeof five {
  return new StateGraph(Trail)
    .addNode("work", work as never)
    .addEdge("__start__", "work")
    .compile() as unknown as typeof five;
}

/**
 * A graph whose runs are in the test's hands. A run is known by its `input`: its node sends what `push` hands
 * over as custom events, and returns when `end` is called.
 */
export interface Feed {
  graph: typeof five;
  push(input: string, ...items: unknown[]): void;
  /** Without names, every run from now on ends at once. */
  end(...inputs: string[]): void;
  /** Resolves when the run's node has begun. */
  entered(input: string): Promise<void>;
  /** Resolves when the run's node was aborted. */
  aborted(input: string): Promise<void>;
  /** The inputs of the runs whose node has begun, in that order. */
  readonly begun: readonly string[];
}

export function createFeed(): Feed {
  interface Line {
    items: unknown[];
    ended: boolean;
    changed: EventTarget;
  }
  const lines = new Map<string, Line>();
  const begun: string[] = [];
  const begins = new EventTarget();
  const stopped: string[] = [];
  const stops = new EventTarget();
  let endAll = false;
  const line = (input: string): Line => {
    const existing = lines.get(input) ?? {
      items: [],
      ended: endAll,
      changed: new EventTarget(),
    };
    lines.set(input, existing);
    return existing;
  };
  const once = (target: EventTarget, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      target.addEventListener("change", () => resolve(), { once: true });
      signal?.addEventListener("abort", () => reject(new Error("aborted")), { once: true });
    });
  const change = (target: EventTarget): boolean => target.dispatchEvent(new Event("change"));

  const graph = single(async ({ input }, config) => {
    const own = line(input);
    begun.push(input);
    change(begins);
    config.signal?.addEventListener("abort", () => {
      stopped.push(input);
      change(stops);
    });
    for (;;) {
      config.signal?.throwIfAborted();
      for (const item of own.items.splice(0)) config.writer?.(item);
      if (own.ended) return { trail: [input] };
      await once(own.changed, config.signal);
    }
  });
  return {
    graph,
    begun,
    push(input, ...items) {
      line(input).items.push(...items);
      change(line(input).changed);
    },
    end(...inputs) {
      if (inputs.length === 0) endAll = true;
      for (const input of inputs.length === 0 ? lines.keys() : inputs) {
        line(input).ended = true;
        change(line(input).changed);
      }
    },
    async entered(input) {
      while (!begun.includes(input)) await once(begins);
    },
    async aborted(input) {
      while (!stopped.includes(input)) await once(stops);
    },
  };
}

/** A registry of graphs that are there already; a function is a factory. */
export function registryOf(graphs: Record<string, unknown>): GraphRegistry {
  const loaded = Object.entries(graphs).map(
    ([id, graph]) =>
      ({
        id,
        description: undefined,
        path: import.meta.filename,
        exportName: id,
        ...(typeof graph === "function"
          ? { kind: "factory", factory: graph }
          : { kind: "graph", graph }),
      }) as LoadedGraph,
  );
  return createGraphRegistry(loaded);
}
