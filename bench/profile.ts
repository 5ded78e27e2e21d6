/**
 * Where the time of a server's CPU profile went, from its first answer on:
 *
 *   node --import jiti/register bench/profile.ts <file.cpuprofile> [rows]
 *
 * Three lists: by part (a package, or a folder of this server) and by function, each with its own time alone;
 * and by the function of this server that was at work, with all that it called until it first waited. Time in
 * which nothing ran is left out.
 */
import { readFile } from "node:fs/promises";

interface Frame {
  functionName: string;
  url: string;
  lineNumber: number;
}

interface Profile {
  nodes: { id: number; callFrame: Frame; children?: number[] }[];
  samples: number[];
  timeDeltas: number[];
}

const [, , file, rows = "25"] = process.argv;
if (!file) throw new Error("Which profile? Give the path of a .cpuprofile.");
const { nodes, samples, timeDeltas } = JSON.parse(await readFile(file, "utf8")) as Profile;
const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
const parents = new Map(
  nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)),
);

const [parts, functions, owners] = [tally(), tally(), tally()];
let total = 0;
let started = false;
samples.forEach((id, index) => {
  const frame = frames.get(id)!;
  const owner = findOwner(id);
  started ||= owner?.functionName === "answer";
  if (!started || frame.functionName === "(idle)") return;
  const ms = (timeDeltas[index] ?? 0) / 1_000;
  total += ms;
  parts.add(toPart(frame), ms);
  functions.add(toPlace(frame), ms);
  owners.add(owner ? toPlace(owner) : `(none of ours) ${toPart(frame)}`, ms);
});
console.log(`${total.toFixed(0)} ms of work`);
parts.print("By part", 20);
functions.print("By function", Number(rows));
owners.print("By our function, with what it called", Number(rows));

/** The innermost function of this server's own on the stack. */
function findOwner(id: number): Frame | undefined {
  for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) {
    const frame = frames.get(at)!;
    if (isOwn(frame.url)) return frame;
  }
  return undefined;
}

function isOwn(url: string): boolean {
  return url.includes("/dist/") && !url.includes("node_modules/");
}

function toPart({ url, functionName }: Frame): string {
  if (url === "") return functionName.startsWith("(") ? functionName : "native code";
  if (url.includes("node_modules/")) {
    const path = url.split("node_modules/").at(-1)!;
    return path
      .split("/")
      .slice(0, path.startsWith("@") ? 2 : 1)
      .join("/");
  }
  if (isOwn(url)) return `ours: ${url.split("/dist/")[1]?.split("/")[0]}`;
  return url.startsWith("node:") ? url : shorten(url);
}

function toPlace({ functionName, url, lineNumber }: Frame): string {
  return `${functionName || "(anonymous)"}  ${shorten(url)}:${lineNumber + 1}`;
}

function shorten(url: string): string {
  return url.split("/").slice(-3).join("/");
}

function tally() {
  const times = new Map<string, number>();
  return {
    add: (name: string, ms: number): void => {
      times.set(name, (times.get(name) ?? 0) + ms);
    },
    print: (title: string, count: number): void => {
      console.log(`\n${title}:`);
      for (const [name, ms] of [...times].toSorted(([, a], [, b]) => b - a).slice(0, count)) {
        console.log(`${((100 * ms) / total).toFixed(1).padStart(5)}%  ${name}`);
      }
    },
  };
}
