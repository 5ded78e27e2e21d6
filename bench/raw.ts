/** The graphs themselves in a process of their own, without a server: what every server is compared with. */
import { answer } from "./child.ts";
import { measure, type Sample, type Workload } from "./closed-loop.ts";
import { five, tokens } from "./project/graphs.ts";

const INPUT = { messages: [{ type: "human", content: "Hello?" }] };

answer(({ workload }: { workload: Workload }) => measure(workload, run));

async function run({ kind, graph }: Workload): Promise<Sample> {
  const chosen = graph === "five" ? five : tokens;
  if (kind === "wait") {
    await chosen.invoke(INPUT);
    return { events: 1 };
  }
  const begin = performance.now();
  const sample: Sample = { events: 0 };
  for await (const _chunk of await chosen.stream(INPUT, { streamMode: "messages" })) {
    sample.firstEventMs ??= performance.now() - begin;
    sample.firstTokenMs ??= sample.firstEventMs;
    sample.events += 1;
  }
  if (sample.events < 500) throw new Error(`A stream ended after ${sample.events} events`);
  return sample;
}
