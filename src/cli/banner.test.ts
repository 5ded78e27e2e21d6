import { expect, test } from "vitest";

import type { ObserverStatus } from "../observability/observer.ts";
import { createPaint, renderBanner, renderTracing } from "./banner.ts";
import type { BannerInput } from "./banner.ts";

const INPUT: BannerInput = {
  version: "1.2.3",
  mode: "dev",
  role: "all",
  processes: 1,
  url: "http://127.0.0.1:2024",
  cwd: "/project",
  database: { kind: "pglite", location: "/project/.aegra/pglite" },
  graphs: [{ id: "agent" }, { id: "other" }],
  tracing: [],
  readyMs: 700,
  paint: createPaint(false),
};

function langfuse(overrides: Partial<ObserverStatus>): ObserverStatus {
  return {
    name: "langfuse",
    state: "on",
    message: "",
    host: "https://lf.example",
    spans: { made: 0, sent: 0, pending: 0, dropped: 0 },
    last_error: undefined,
    ...overrides,
  };
}

test("shows where everything is, and how to turn tracing on", () => {
  expect(renderBanner(INPUT)).toBe(`
  aegra 1.2.3  dev, ready in 700 ms

  API        http://127.0.0.1:2024
  Docs       http://127.0.0.1:2024/docs
  Studio     https://smith.langchain.com/studio/?baseUrl=http://127.0.0.1:2024
  Database   PGlite, .aegra/pglite
  Graphs     agent, other
  Langfuse   off. To trace every run, put four lines into .env:
               LANGFUSE_LOGGING=true
               LANGFUSE_PUBLIC_KEY=pk-lf-...
               LANGFUSE_SECRET_KEY=sk-lf-...
               LANGFUSE_HOST=https://cloud.langfuse.com

`);
});

test("shows failed graphs with place, reason and source", () => {
  const error = {
    message: "TypeError: no key",
    file: "/project/src/agent.ts",
    line: 3,
    column: 7,
    excerpt: "> 3 | throw new TypeError();\n    |       ^",
  };
  const banner = renderBanner({ ...INPUT, graphs: [{ id: "agent", error }, { id: "fine" }] });
  expect(banner).toContain(`
  Graphs     fine
             agent: src/agent.ts:3:7: TypeError: no key
               > 3 | throw new TypeError();
                   |       ^
`);
  expect(renderBanner({ ...INPUT, graphs: [{ id: "agent", error }] })).toContain(
    "  Graphs     none could be loaded\n             agent: src/agent.ts:3:7",
  );
});

test("an address for all interfaces is shown as one a browser can open", () => {
  const banner = renderBanner({ ...INPUT, mode: "start", url: "http://0.0.0.0:80" });
  expect(banner).toContain("  API        http://localhost:80\n");
});

test("PostgreSQL is named", () => {
  const banner = renderBanner({
    ...INPUT,
    database: { kind: "postgres", location: "db.example/app" },
  });
  expect(banner).toContain("  Database   PostgreSQL, db.example/app\n");
});

test.each<[Partial<ObserverStatus>, string[]]>([
  [
    { message: 'project "shop" at https://lf.example' },
    ['  Langfuse   on, project "shop" at https://lf.example'],
  ],
  [
    { state: "checking", message: "https://lf.example" },
    ["  Langfuse   checking, https://lf.example"],
  ],
  [
    { state: "misconfigured", message: "the packages are missing. Run:\nnpm install x" },
    ["  Langfuse   not working, the packages are missing. Run:", "             npm install x"],
  ],
  [
    { state: "unreachable", message: "connection refused; it is tried again" },
    ["  Langfuse   unreachable, connection refused; it is tried again"],
  ],
])("the state of Langfuse: %j", (status, lines) => {
  expect(renderTracing(langfuse(status))).toEqual(lines);
  expect(renderBanner({ ...INPUT, tracing: [langfuse(status)] })).toContain(lines.join("\n"));
});

test("a target that is off reads like none at all, other targets have their own line", () => {
  const off = renderBanner({ ...INPUT, tracing: [langfuse({ state: "off" })] });
  expect(off).toBe(renderBanner(INPUT));
  const both = renderBanner({
    ...INPUT,
    tracing: [langfuse({}), langfuse({ name: "otlp", state: "on", message: "http://otel" })],
  });
  expect(both).toContain("  Langfuse   on\n  Otlp       on, http://otel\n");
  expect(both).not.toContain("LANGFUSE_LOGGING");
});

test("colours are optional", () => {
  expect(renderBanner({ ...INPUT, paint: createPaint(true) })).toContain(
    "\u001B[36mhttp://127.0.0.1:2024\u001B[39m",
  );
  expect(renderBanner(INPUT)).not.toContain("\u001B");
});
