import { readdir, readFile } from "node:fs/promises";
import { expect, it } from "vitest";
import { parse } from "yaml";
import { readEnvironment } from "../../src/config/env.ts";

const ROOT = new URL("../../", import.meta.url);
const CHART = "deploy/helm/aegra/";
const manifest = JSON.parse(await read("package.json")) as {
  version: string;
  peerDependencies: Record<string, string>;
};

function read(path: string): Promise<string> {
  return readFile(new URL(path, ROOT), "utf8");
}

/** Every dotted path of a value, those of groups included. */
function listPaths(value: unknown, prefix = ""): string[] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return [];
  return Object.entries(value).flatMap(([key, inner]) => [
    prefix + key,
    ...listPaths(inner, `${prefix}${key}.`),
  ]);
}

const names = await readdir(new URL(`${CHART}templates`, ROOT));
const templates = await Promise.all(
  names.map(async (name) => ({ name, text: await read(`${CHART}templates/${name}`) })),
);
const used = new Set(
  templates.flatMap(({ text }) =>
    [...text.matchAll(/\.Values\.([\w.]+)/gu)].map(([, path = ""]) => path),
  ),
);

it.each(["embedded", "scale", "langfuse"])("deploy/%s/compose.yaml is whole", async (name) => {
  const compose = parse(await read(`deploy/${name}/compose.yaml`), { merge: true }) as {
    services: Record<string, { volumes?: string[]; depends_on?: Record<string, unknown> }>;
    volumes: Record<string, unknown>;
  };
  for (const { volumes = [], depends_on: others = {} } of Object.values(compose.services)) {
    expect(Object.keys(compose.services)).toEqual(expect.arrayContaining(Object.keys(others)));
    const named = volumes.map((volume) => volume.split(":")[0]!).filter((at) => /^\w+$/u.test(at));
    expect(Object.keys(compose.volumes)).toEqual(expect.arrayContaining(named));
  }
});

it("every variable that the image, the chart and the compose files set is one the server reads", async () => {
  const known = new Set<string>(["NODE_ENV"]);
  readEnvironment(
    new Proxy<Record<string, string>>({}, { get: (_, name) => void known.add(String(name)) }),
    [],
  );
  const dockerfile = await read("deploy/Dockerfile");
  const inImage = [...dockerfile.matchAll(/^(?:ENV| {3}) (\w+)=/gmu)].map(([, name]) => name);
  const inChart = templates.flatMap(({ text }) =>
    [...text.matchAll(/- name: ([A-Z_]+)$/gmu)].map(([, name]) => name),
  );
  const scale = parse(await read("deploy/scale/compose.yaml"), { merge: true }) as {
    services: { api: { environment: object } };
  };
  expect(inImage.length * inChart.length).toBeGreaterThan(0);
  for (const name of [...inImage, ...inChart, ...Object.keys(scale.services.api.environment)])
    expect(known).toContain(name);
});

it("the image installs the packages that a project brings, in the versions of package.json", async () => {
  const dockerfile = await read("deploy/Dockerfile");
  for (const [name, range] of Object.entries(manifest.peerDependencies)) {
    // Reads types, which is for development; `start` takes what was read.
    if (name === "@langchain/langgraph-api") continue;
    const [, asked] = new RegExp(`"${name}@([^"]+)"`, "u").exec(dockerfile) ?? [];
    expect(asked, name).toBeDefined();
    expect(range).toContain(asked!.replace("^", ""));
  }
});

it("the chart is of this version, and its values and templates name the same", async () => {
  const chart = parse(await read(`${CHART}Chart.yaml`)) as { version: string; appVersion: string };
  expect([chart.version, chart.appVersion]).toEqual([manifest.version, manifest.version]);
  const paths = listPaths(parse(await read(`${CHART}values.yaml`)));
  expect([...used].filter((path) => !paths.includes(path))).toEqual([]);
  const isUsed = (path: string): boolean =>
    [...used].some((other) => `${path}.`.startsWith(`${other}.`) || other.startsWith(`${path}.`));
  expect(paths.filter((path) => !isUsed(path))).toEqual([]);
});

it.each(templates)("every block of the chart's $name is closed", ({ text }) => {
  const actions = [...text.matchAll(/\{\{-?\s*(\w+)/gu)].map(([, word]) => word);
  const opened = actions.filter((word) => /^(?:if|with|range|define)$/u.test(word ?? ""));
  expect(actions.filter((word) => word === "end")).toHaveLength(opened.length);
  expect(text.split("{{")).toHaveLength(text.split("}}").length);
});
