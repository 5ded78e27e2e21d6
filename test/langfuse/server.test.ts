import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Client } from "@langchain/langgraph-sdk";
import { afterAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import {
  approval,
  bottomless,
  chat,
  createGate,
  failing,
  five,
  nested,
  registryOf,
} from "../support/graphs.ts";
import {
  openLangfuseReceiver,
  type LangfuseReceiver,
  type ReceivedSpan,
} from "../support/langfuse-receiver.ts";
import { createClient, startServer } from "../support/server.ts";

const AUTH = `
import { Auth, HTTPException } from "@langchain/langgraph-sdk/auth";
export const auth = new Auth().authenticate(async (request) => {
  const user = request.headers.get("authorization")?.replace("Bearer ", "");
  if (!user) throw new HTTPException(401, { message: "Say who you are" });
  return user;
});
`;

const traceId = (runId: string): string => runId.replaceAll("-", "");

/** What Langfuse reads on every span of a trace. */
function identityOf(span: ReceivedSpan) {
  return {
    session: span.attributes["session.id"],
    user: span.attributes["user.id"],
    tags: span.attributes["langfuse.trace.tags"],
    name: span.attributes["langfuse.trace.name"],
    environment: span.attributes["langfuse.environment"],
  };
}

function rootOf(spans: ReceivedSpan[]): ReceivedSpan {
  const roots = spans.filter((span) => span.parentSpanId === undefined);
  expect(roots).toHaveLength(1);
  return roots[0]!;
}

describeDatabases("tracing through the server", (databases) => {
  let opened: ReturnType<typeof open> | undefined;
  const gate = createGate();
  const receivers: LangfuseReceiver[] = [];
  afterAll(() => Promise.all(receivers.map((receiver) => receiver.close())));

  const open = async () => {
    const receiver = await openLangfuseReceiver();
    receivers.push(receiver);
    const { dataDir } = await databases.configure();
    const file = join(dataDir, "auth.mts");
    await writeFile(
      file,
      AUTH.replace(
        "@langchain/langgraph-sdk/auth",
        import.meta.resolve("@langchain/langgraph-sdk/auth"),
      ),
    );
    const { url, server } = await startServer(
      databases,
      registryOf({ five, chat, approval, failing, nested, bottomless, gate: gate.graph }),
      {
        config: {
          auth: { module: { path: file, exportName: "auth" }, disable_studio_auth: true },
          langfuse: {
            enabled: true,
            publicKey: receiver.publicKey,
            secretKey: receiver.secretKey,
            host: `${receiver.url}/`,
            sampleRate: 1,
            environment: "test",
            release: "r1",
            timeoutMs: 60_000,
            flushAt: 64,
            flushIntervalMs: 20,
            headers: {},
            mask: undefined,
          },
        },
      },
    );
    await server.observer.ready();
    const clientOf = (user: string): Client =>
      createClient(url, { authorization: `Bearer ${user}` });
    return { receiver, url, clientOf, alice: clientOf("alice") };
  };
  const setUp = () => (opened ??= open());

  const expectTrace = async (runId: string, session: string | undefined, user: string) => {
    const { receiver } = await setUp();
    const spans = await receiver.waitForTrace(traceId(runId));
    const root = rootOf(spans);
    const identity = identityOf(root);
    expect(identity.user).toBe(user);
    expect(identity.session).toBe(session);
    expect(identity.tags).toEqual(
      expect.arrayContaining(["aegra_run", `run:${runId}`, `user:${user}`]),
    );
    for (const span of spans) expect(identityOf(span)).toEqual(identity);
    return { spans, root };
  };

  const runOn = async (client: Client, graph: string, options: Record<string, unknown>) => {
    const { thread_id: threadId } = await client.threads.create();
    let runId = "";
    const answer = await client.runs.wait(threadId, graph, {
      ...options,
      onRunCreated: (run) => (runId = run.run_id),
      raiseError: false,
    });
    return { threadId, runId, answer };
  };

  it("traces a run that is waited for", async () => {
    const { alice } = await setUp();
    const { threadId, runId } = await runOn(alice, "five", { input: { input: "x" } });
    const { spans, root } = await expectTrace(runId, threadId, "alice");
    expect(identityOf(root).tags).toContain(`thread:${threadId}`);
    expect(root.name).toBe("five");
    expect(identityOf(root).name).toBe("five");
    expect(root.attributes["langfuse.observation.type"]).toBe("agent");
    expect(spans.map((span) => span.name).toSorted()).toEqual(
      ["five", "five", "four", "one", "three", "two"].toSorted(),
    );
    expect(
      root.attributes["langfuse.observation.metadata.run_id"] ??
        root.attributes["langfuse.trace.metadata.run_id"],
    ).toBe(runId);
    const run = await alice.runs.get(threadId, runId);
    expect(run).toMatchObject({ trace_id: traceId(runId) });
    expect((run as { trace_url?: string }).trace_url).toContain(`/traces/${traceId(runId)}`);
  });

  it("traces a stream, and tells its trace in the metadata event", async () => {
    const { alice } = await setUp();
    const { thread_id: threadId } = await alice.threads.create();
    const parts = [];
    for await (const part of alice.runs.stream(threadId, "chat", {
      input: { messages: [{ role: "user", content: "Hi" }] },
      streamMode: ["messages-tuple", "events"],
    })) {
      parts.push(part);
    }
    const { run_id: runId, trace_id: id } = parts[0]!.data as unknown as Record<string, string>;
    expect(id).toBe(traceId(runId!));
    const { spans, root } = await expectTrace(runId!, threadId, "alice");
    expect(root.attributes["langfuse.observation.input"]).toContain("Hi");
    expect(root.attributes["langfuse.observation.output"]).toContain("Hello there!");
    expect(spans.map((span) => span.attributes["langfuse.observation.type"])).toContain(
      "generation",
    );
  });

  it("traces a run in the background, and one without a thread", async () => {
    const { alice } = await setUp();
    const { thread_id: threadId } = await alice.threads.create();
    const background = await alice.runs.create(threadId, "nested", { input: { input: "x" } });
    await expectTrace(background.run_id, threadId, "alice");
    const stateless = await alice.runs.create(null, "five", { input: { input: "x" } });
    await expectTrace(stateless.run_id, undefined, "alice");
    const named = await alice.runs.create(null, "five", {
      input: { input: "x" },
      metadata: { session_id: "my-session" },
    });
    await expectTrace(named.run_id, "my-session", "alice");
  });

  it("traces an interrupt as a question, and the resumed run beside it", async () => {
    const { alice, receiver } = await setUp();
    const asked = await runOn(alice, "approval", { input: { input: "x" } });
    const { root } = await expectTrace(asked.runId, asked.threadId, "alice");
    expect(root.attributes["langfuse.observation.level"] ?? "DEFAULT").toBe("DEFAULT");
    expect(root.attributes["langfuse.observation.output"]).toContain("Go on?");
    let resumedId = "";
    await alice.runs.wait(asked.threadId, "approval", {
      command: { resume: "yes" },
      onRunCreated: (run) => (resumedId = run.run_id),
    });
    const resumed = await expectTrace(resumedId, asked.threadId, "alice");
    expect(JSON.stringify(resumed.root.attributes)).toContain(asked.runId);
    expect(receiver.violations()).toEqual([]);
  });

  it("traces a cancelled run as a warning, and a failed one as an error", async () => {
    const { alice } = await setUp();
    const { thread_id: threadId } = await alice.threads.create();
    const run = await alice.runs.create(threadId, "gate", { input: { input: "x" } });
    await gate.entered;
    await alice.runs.cancel(threadId, run.run_id, true);
    const cancelled = await expectTrace(run.run_id, threadId, "alice");
    expect(cancelled.root.attributes["langfuse.observation.level"]).toBe("WARNING");
    const failed = await runOn(alice, "failing", { input: { input: "x" } });
    const { root } = await expectTrace(failed.runId, failed.threadId, "alice");
    expect(root.attributes["langfuse.observation.level"]).toBe("ERROR");
    expect(root.attributes["langfuse.observation.status_message"]).toContain(
      "The second node is broken",
    );
  });

  it("traces a run whose state cannot be stored as an error", async () => {
    const { alice } = await setUp();
    const { runId, threadId, answer } = await runOn(alice, "bottomless", { input: { input: "x" } });
    const told = "The graph's state cannot be stored";
    expect(answer).toMatchObject({
      __error__: { message: expect.stringContaining(told) as string },
    });
    const { root } = await expectTrace(runId, threadId, "alice");
    expect(root.attributes["langfuse.observation.level"]).toBe("ERROR");
    expect(root.attributes["langfuse.observation.status_message"]).toContain(told);
  });

  it("never mixes twenty concurrent runs of several users", async () => {
    const { clientOf, receiver } = await setUp();
    const users = ["ada", "ben", "cleo", "dan"];
    const runs = await Promise.all(
      Array.from({ length: 20 }, async (_, index) => {
        const user = users[index % users.length]!;
        const graph = ["five", "nested", "chat"][index % 3]!;
        const input =
          graph === "chat" ? { messages: [{ role: "user", content: user }] } : { input: user };
        return { user, ...(await runOn(clientOf(user), graph, { input })) };
      }),
    );
    for (const { runId, threadId, user } of runs) {
      const { spans } = await expectTrace(runId, threadId, user);
      const foreign = users.filter((other) => other !== user);
      const inputs = spans.map((span) =>
        String(span.attributes["langfuse.observation.input"] ?? ""),
      );
      for (const other of foreign) expect(inputs.join()).not.toContain(`"${other}"`);
    }
    expect(receiver.violations()).toEqual([]);
  });

  it("lets no client forge who it is", async () => {
    const { alice } = await setUp();
    const forged = {
      session_id: "forged-session",
      user_id: "mallory",
      langfuse_session_id: "forged-session",
      langfuse_user_id: "mallory",
      langfuseSessionId: "forged-session",
      langfuseUserId: "mallory",
      run_id: "forged-run",
      thread_id: "forged-thread",
    };
    const { threadId, runId } = await runOn(alice, "five", {
      input: { input: "x" },
      metadata: forged,
      config: {
        tags: ["mine", "user:mallory", "thread:forged-thread", "run:forged-run"],
        configurable: { ...forged, langgraph_auth_user_id: "mallory" },
      },
    });
    const { spans, root } = await expectTrace(runId, threadId, "alice");
    expect(identityOf(root).tags).toContain("mine");
    for (const span of spans) {
      const tags = identityOf(span).tags as string[];
      expect(tags).not.toContain("user:mallory");
      expect(tags).not.toContain("run:forged-run");
      expect(span.attributes["user.id"]).toBe("alice");
    }
  });
});
