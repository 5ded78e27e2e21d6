#!/usr/bin/env node
import { cac } from "cac";

import { reportFailure, WRONG_USAGE } from "./failure.ts";
import { parseServeOptions } from "./options.ts";
import type { RawOptions } from "./options.ts";
import { readVersion } from "./serve.ts";

const cli = cac("aegra");

cli
  .command("dev", "Serve the graphs of this project, and load them again when they change")
  .option("--port <port>", "Port (default: 2024, or the next free one)")
  .option("--host <host>", "Address to listen on (default: 127.0.0.1)")
  .option("--config <file>", "Config file (default: aegra.json, else langgraph.json)")
  .option("--cwd <folder>", "The project's folder (default: the current one)")
  .option("--log-level <level>", "trace, debug, info, warn, error, fatal or silent (default: info)")
  .option("--no-reload", "Do not watch for changes")
  .action(async (raw: RawOptions & { reload: boolean }) => {
    const { dev } = await import("./dev.ts");
    await dev({ ...parseServeOptions(raw), reload: raw.reload });
  });

cli
  .command("start", "Serve the graphs of this project")
  .option("--port <port>", "Port (default: 2024, or the next free one)")
  .option("--host <host>", "Address to listen on (default: 0.0.0.0)")
  .option("--config <file>", "Config file (default: aegra.json, else langgraph.json)")
  .option("--cwd <folder>", "The project's folder (default: the current one)")
  .option("--log-level <level>", "trace, debug, info, warn, error, fatal or silent (default: info)")
  .option(
    "--role <role>",
    "all, api (executes no runs) or worker (answers no requests) (default: all)",
  )
  .option("--workers <count>", "Runs each process executes at the same time (default: 10)")
  .option("--processes <count>", "Processes that share the port; needs PostgreSQL (default: 1)")
  .action(async (raw: RawOptions) => {
    const { start } = await import("./start.ts");
    await start(parseServeOptions(raw));
  });

cli
  .command(
    "db <action>",
    "migrate: bring the database up to this version (every start does it too)",
  )
  .option("--config <file>", "Config file (default: aegra.json, else langgraph.json)")
  .option("--cwd <folder>", "The project's folder (default: the current one)")
  .action(async (action: string, raw: RawOptions) => {
    if (action !== "migrate")
      refuse(`Unknown action "${action}" of "aegra db". There is: migrate.`);
    const { migrateDatabase } = await import("./db.ts");
    await migrateDatabase(parseServeOptions(raw));
  });

cli
  .command("doctor", "Look at everything a server of this project needs, and say what to mend")
  .option("--config <file>", "Config file (default: aegra.json, else langgraph.json)")
  .option("--cwd <folder>", "The project's folder (default: the current one)")
  .option("--json", "Print the findings as JSON")
  .action(async (raw: RawOptions & { json?: boolean }) => {
    const { doctor } = await import("./doctor.ts");
    process.exit(await doctor({ ...parseServeOptions(raw), json: raw.json === true }));
  });

cli
  .command(
    "traces <action>",
    "status: what waits to be sent; flush: send it; dead-letters: what was refused; replay: try those again",
  )
  .option("--config <file>", "Config file (default: aegra.json, else langgraph.json)")
  .option("--cwd <folder>", "The project's folder (default: the current one)")
  .option("--timeout <seconds>", "How long flush may take (default: 30)")
  .option("--json", "Print status or dead-letters as JSON")
  .action(async (name: string, raw: RawOptions & { json?: boolean; timeout?: unknown }) => {
    const { traces, TRACES_ACTIONS } = await import("./traces.ts");
    const action = TRACES_ACTIONS.find((known) => known === name);
    if (action === undefined)
      refuse(
        `Unknown action "${name}" of "aegra traces". There are: ${TRACES_ACTIONS.join(", ")}.`,
      );
    const seconds = Number(raw.timeout ?? 30);
    if (!(seconds > 0)) refuse("--timeout must be a number of seconds above 0.");
    const options = { ...parseServeOptions(raw), json: raw.json === true, action };
    process.exit(await traces({ ...options, timeoutMs: seconds * 1_000 }));
  });

cli.usage("<command> [options]");
// The parser adds what a switch is when it is not given, which reads as if watching were off.
cli.help((sections) =>
  sections.map((section) => ({
    ...section,
    body: section.body.replaceAll(/^( +--no-.*) \(default: true\)$/gmu, "$1"),
  })),
);
cli.version(readVersion());

function refuse(message: string): never {
  process.stderr.write(`${message}\n`);
  process.exit(WRONG_USAGE);
}

/** A number below zero is the value of the option before it, which the parser takes for an option of its own. */
function joinNegative(args: readonly string[]): string[] {
  return args.flatMap((arg, index) => {
    const isValue = (at: number): boolean =>
      /^-\d/u.test(args[at] ?? "") && /^--[a-z-]+$/u.test(args[at - 1] ?? "");
    if (isValue(index)) return [];
    return isValue(index + 1) ? [`${arg}=${args[index + 1]}`] : [arg];
  });
}

try {
  const { options } = cli.parse(joinNegative(process.argv), { run: false });
  // Which of them is meant nobody can tell; the parser would hand on a list, which is no value at all.
  const twice = Object.keys(options).find((name) => name !== "--" && Array.isArray(options[name]));
  if (twice !== undefined) {
    const flag = twice.replaceAll(/[A-Z]/gu, (letter) => `-${letter.toLowerCase()}`);
    refuse(`--${flag} is given more than once; give it once.`);
  }
  const [unknown] = cli.args;
  if (!cli.matchedCommand && !options["help"] && !options["version"]) {
    if (unknown !== undefined)
      refuse(`Unknown command "${unknown}". "aegra --help" lists the commands.`);
    cli.outputHelp();
  }
} catch (error) {
  refuse(error instanceof Error ? error.message : String(error));
}
try {
  await cli.runMatchedCommand();
} catch (error) {
  if (error instanceof Error && error.name === "CACError") refuse(error.message);
  process.exit(reportFailure(error));
}
