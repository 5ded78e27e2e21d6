/**
 * What two parts of a run cost that LangChain has too, beside its own: a message on its way to the wire, and the
 * callback managers of a graph. In one process, in turns; medians. Prints Markdown.
 *
 *   node --import jiti/register bench/parts.ts [--rounds 7]
 */
import { parseArgs } from "node:util";
import { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import type { Callbacks } from "@langchain/core/callbacks/manager";
import {
  AIMessage,
  AIMessageChunk,
  HumanMessage,
  type BaseMessage,
} from "@langchain/core/messages";
import { RunCallbacks } from "../src/engine/run-callbacks.ts";
import { toWireJson } from "../src/storage/json.ts";
import { five } from "./project/graphs.ts";

const { values: flags } = parseArgs({ options: { rounds: { type: "string", default: "7" } } });
const rounds = Number(flags.rounds);
const MESSAGES_A_ROUND = 50_000;
const RUNS_A_ROUND = 300;
const AT_ONCE = 8;

const median = (numbers: readonly number[]): number =>
  numbers.toSorted((left, right) => left - right)[numbers.length >> 1] ?? 0;

/** Measures each in turns, forwards and backwards; the first round warms up. */
async function inTurns<Name extends string>(
  measures: Record<Name, () => Promise<number>>,
): Promise<Record<Name, number>> {
  const names = Object.keys(measures) as Name[];
  const found = Object.fromEntries(names.map((name) => [name, [] as number[]]));
  for (let round = -1; round < rounds; round += 1) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const figure = await measures[name]();
      if (round >= 0) found[name]!.push(figure);
    }
  }
  return Object.fromEntries(names.map((name) => [name, median(found[name]!)])) as never;
}

const messages: Record<string, BaseMessage> = {
  "a token": new AIMessageChunk({ content: "tok", id: "run-1", tool_call_chunks: [] }),
  "a question": new HumanMessage({ content: "hello there", id: "h" }),
  "an answer with a tool call and usage": new AIMessage({
    content: "hello there",
    id: "a",
    tool_calls: [{ name: "x", args: { a: 1 }, id: "1" }],
    usage_metadata: { input_tokens: 1, output_tokens: 2, total_tokens: 3 },
  }),
};
console.log("| one message to its wire form | `toDict` and `JSON.stringify` | this server |");
console.log("| --- | ---: | ---: |");
for (const [name, message] of Object.entries(messages)) {
  const timed = (write: () => string) => async (): Promise<number> => {
    const from = performance.now();
    for (let count = 0; count < MESSAGES_A_ROUND; count += 1) write();
    return ((performance.now() - from) * 1_000) / MESSAGES_A_ROUND;
  };
  const { theirs, ours } = await inTurns({
    theirs: timed(() => {
      const { type, data } = message.toDict();
      return JSON.stringify({ ...data, type });
    }),
    ours: timed(() => toWireJson(message)),
  });
  console.log(`| ${name} | ${theirs.toFixed(1)} µs | ${ours.toFixed(1)} µs |`);
}

/** Hears of every chain, as tracing does, and does nothing. */
class Idle extends BaseCallbackHandler {
  name = "idle";
  override awaitHandlers = true;
  override handleChainStart(): void {}
  override handleChainEnd(): void {}
}

/** Milliseconds of processor time for one run of the five-node graph. */
const runs =
  (keys: number, callbacks: () => Callbacks | undefined) => async (): Promise<number> => {
    const metadata = Object.fromEntries(
      Array.from({ length: keys }, (_, index) => [`key_${index}`, "value"]),
    );
    let left = RUNS_A_ROUND;
    const before = process.cpuUsage();
    await Promise.all(
      Array.from({ length: AT_ONCE }, async () => {
        while (left > 0) {
          left -= 1;
          const own = callbacks();
          await five.invoke(
            { messages: [{ type: "human", content: "hello" }] },
            { metadata, ...(own && { callbacks: own }) },
          );
        }
      }),
    );
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1_000 / RUNS_A_ROUND;
  };
console.log(
  "\n| keys of metadata | no handler | one that does nothing | the same, as this server passes it |",
);
console.log("| ---: | ---: | ---: | ---: |");
for (const keys of [0, 6, 12, 24]) {
  const { none, usual, ours } = await inTurns({
    none: runs(keys, () => undefined),
    usual: runs(keys, () => [new Idle()]),
    ours: runs(keys, () => RunCallbacks.of([new Idle()])),
  });
  const cells = [none, usual, ours].map((ms) => `${ms.toFixed(2)} ms`);
  console.log(`| ${keys} | ${cells.join(" | ")} |`);
}
