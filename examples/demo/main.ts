/**
 * The whole story in one terminal, without an account: the server, a stand-in for Langfuse, a conversation
 * with the example agent through the official SDK, and the traces that arrived.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Client } from "@langchain/langgraph-sdk";
import { openLangfuseReceiver } from "../../test/support/langfuse-receiver.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const bold = (text: string): string => (process.stdout.isTTY ? `\u001B[1m${text}\u001B[0m` : text);
const dim = (text: string): string => (process.stdout.isTTY ? `\u001B[2m${text}\u001B[0m` : text);
const say = (text: string): void => console.log(text);

const folder = await mkdtemp(join(tmpdir(), "aegra-demo-"));
const langfuse = await openLangfuseReceiver({ projectName: "Demo" });
let server: ChildProcess | undefined;
try {
  say(bold("1. The server, with four lines of environment"));
  const env = {
    LANGFUSE_LOGGING: "true",
    LANGFUSE_PUBLIC_KEY: langfuse.publicKey,
    LANGFUSE_SECRET_KEY: langfuse.secretKey,
    LANGFUSE_HOST: langfuse.url,
  };
  for (const [name, value] of Object.entries(env)) say(dim(`   ${name}=${value}`));
  const url = await start(env);
  say(`   serving examples/agent on ${url}\n`);

  const client = new Client({ apiUrl: url, apiKey: null });
  const thread = await client.threads.create();

  say(bold("2. A question: tokens, and a tool"));
  await ask(client, thread.thread_id, "Where is my order 1001?");

  say(bold("3. A refund: the agent asks a person first"));
  await ask(client, thread.thread_id, "Please refund order 1001.");
  const waiting = await client.threads.get(thread.thread_id);
  const [question] = Object.values(waiting.interrupts).flat();
  say(`   thread is ${waiting.status}: ${JSON.stringify(question?.value)}`);
  say("   answering: approved\n");
  await resume(client, thread.thread_id, { approved: true });

  say(bold("4. What arrived in Langfuse"));
  const runs = (await client.runs.list(thread.thread_id)).toReversed();
  for (const run of runs) {
    const traceId = run.run_id.replaceAll("-", "");
    await langfuse.waitForTrace(traceId);
    say(langfuse.formatTrace(traceId).replaceAll(/^/gmu, "   "));
  }
  const problems = langfuse.violations();
  if (problems.length > 0) throw new Error(`Langfuse would misread this:\n${problems.join("\n")}`);
  say(
    `${runs.length} runs, ${langfuse.traceIds().length} traces, one session: ${thread.thread_id}`,
  );
} finally {
  if (server) await stop(server);
  await langfuse.close();
  await rm(folder, { recursive: true, force: true });
}

/** Streams one turn of the conversation, token by token. */
async function ask(client: Client, threadId: string, text: string): Promise<void> {
  say(`   user: ${text}`);
  await show(
    client.runs.stream(threadId, "agent", {
      input: { messages: [{ role: "user", content: text }] },
      streamMode: ["messages-tuple"],
    }),
  );
}

async function resume(client: Client, threadId: string, answer: unknown): Promise<void> {
  await show(
    client.runs.stream(threadId, "agent", {
      command: { resume: answer },
      streamMode: ["messages-tuple"],
    }),
  );
}

async function show(stream: AsyncIterable<{ event: string; data: unknown }>): Promise<void> {
  let tokens = 0;
  let open = false;
  for await (const { event, data } of stream) {
    if (event === "error") throw new Error(JSON.stringify(data));
    if (event !== "messages") continue;
    const [message] = data as [{ type: string; content: unknown; name?: string }];
    if (typeof message.content !== "string" || message.content === "") continue;
    if (message.type === "tool") {
      if (open) process.stdout.write("\n");
      open = false;
      say(`   tool ${message.name ?? ""}: ${message.content}`);
      continue;
    }
    if (!open) process.stdout.write("   agent: ");
    open = true;
    tokens += 1;
    process.stdout.write(message.content);
  }
  say(open ? dim(`  (${tokens} tokens)\n`) : "");
}

async function start(env: Record<string, string>): Promise<string> {
  const port = await freePort();
  server = spawn(
    process.execPath,
    [join(ROOT, "dist/cli/main.js"), "start", "--host", "127.0.0.1", "--port", String(port)],
    {
      cwd: join(ROOT, "examples/agent"),
      env: { ...process.env, ...env, AEGRA_DATA_DIR: folder, LOG_LEVEL: "warn", DATABASE_URL: "" },
      stdio: ["ignore", "ignore", "pipe"],
    },
  );
  let errors = "";
  server.stderr?.on("data", (chunk: Buffer) => (errors += chunk.toString()));
  const url = `http://127.0.0.1:${port}`;
  for (;;) {
    if (server.exitCode !== null) throw new Error(`The server did not start:\n${errors}`);
    if (
      await fetch(`${url}/ok`).then(
        (answer) => answer.ok,
        () => false,
      )
    )
      return url;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGTERM");
  await exited;
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const address = probe.address();
  probe.close();
  if (typeof address !== "object" || address === null) throw new Error("No free port");
  return address.port;
}
