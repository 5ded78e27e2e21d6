import { Role, TaskState, type Message, type Part, type Task } from "@a2a-js/sdk";
import { ClientFactory, type Client } from "@a2a-js/sdk/client";
import { LegacyJsonRpcTransport, parseLegacyAgentCard } from "@a2a-js/sdk/compat/v0_3/client";
import { AIMessage } from "@langchain/core/messages";
import { MessagesAnnotation, StateGraph } from "@langchain/langgraph";
import { randomUUID } from "node:crypto";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { approval, chat, createFeed, failing, registryOf } from "../support/graphs.ts";
import { collect, request, startServer, type TestServer } from "../support/server.ts";

const feed = createFeed();

/** Says how much it was told. */
const plain = new StateGraph(MessagesAnnotation)
  .addNode("reply", async (state: typeof MessagesAnnotation.State) => ({
    messages: [new AIMessage(`${state.messages.length} so far`)],
  }))
  .addEdge("__start__", "reply")
  .compile();

function message(parts: (string | object)[], place: Partial<Message> = {}): Message {
  return {
    messageId: randomUUID(),
    contextId: "",
    taskId: "",
    role: Role.ROLE_USER,
    parts: parts.map(
      (part) =>
        ({
          content:
            typeof part === "string"
              ? { $case: "text", value: part }
              : { $case: "data", value: part },
          metadata: undefined,
          filename: "",
          mediaType: "",
        }) as Part,
    ),
    metadata: undefined,
    extensions: [],
    referenceTaskIds: [],
    ...place,
  };
}

const send = (own: Message, configuration: object = {}) => ({
  tenant: "",
  message: own,
  configuration: {
    acceptedOutputModes: [],
    taskPushNotificationConfig: undefined,
    returnImmediately: false,
    ...configuration,
  },
  metadata: undefined,
});

const texts = (parts: Part[] | undefined) =>
  (parts ?? []).map(({ content }) => content?.value as unknown);
const stateOf = (task: Task) => task.status?.state;
const asTask = (given: Message | Task): Task => given as Task;

describeDatabases("A2A", (databases) => {
  let server: TestServer;
  const agent = (graph: string): Promise<Client> =>
    new ClientFactory().createFromUrl(
      server.url,
      `/.well-known/agent-card.json?assistant_id=${graph}`,
    );
  beforeAll(async () => {
    const graphs = registryOf({ chat, plain, approval, failing, feed: feed.graph });
    server = await startServer(databases, graphs);
  });

  it("describes an assistant by its card", async () => {
    const assistant = await server.client.assistants.create({
      graphId: "chat",
      name: "Greeter",
      description: "Says hello",
    });
    const card = await (await agent(assistant.assistant_id)).getAgentCard();
    expect(card).toMatchObject({
      name: "Greeter",
      description: "Says hello",
      capabilities: { streaming: true, pushNotifications: false },
      supportedInterfaces: [{ protocolBinding: "JSONRPC", protocolVersion: "1.0" }, {}],
      skills: [{ name: "Greeter", description: "Says hello" }],
    });
    expect(card.supportedInterfaces[0]!.url).toBe(`${server.url}/a2a/${assistant.assistant_id}`);
    const several = await request(server.url, "/.well-known/agent-card.json");
    expect([several.status, several.text]).toEqual([422, expect.stringContaining("assistant_id")]);
    const none = await request(server.url, `/a2a/${randomUUID()}/.well-known/agent-card.json`);
    expect(none.status).toBe(404);
  });

  it("answers a message, and remembers the conversation", async () => {
    const client = await agent("plain");
    const first = asTask(await client.sendMessage(send(message(["Hi"]))));
    expect(stateOf(first)).toBe(TaskState.TASK_STATE_COMPLETED);
    expect(texts(first.artifacts[0]?.parts)).toEqual(["1 so far"]);
    const { contextId } = first;
    const again = message(["And now?"], { contextId });
    const second = asTask(await client.sendMessage(send(again)));
    expect(second.contextId).toBe(contextId);
    expect(second.id).not.toBe(first.id);
    expect(second.history.map(({ role, parts }) => [role, ...texts(parts)])).toEqual([
      [Role.ROLE_USER, "And now?"],
      [Role.ROLE_AGENT, "3 so far"],
    ]);
    // The task is a run of the thread that is the context.
    const run = await server.client.runs.get(contextId, second.id);
    expect(run.status).toBe("success");
    expect(await client.getTask({ tenant: "", id: second.id, historyLength: 1 })).toEqual({
      ...second,
      history: second.history.slice(1),
    });
    expect((await client.getTask({ tenant: "", id: second.id, historyLength: 0 })).history).toEqual(
      [],
    );
    const { tasks, totalSize } = await client.listTasks({
      tenant: "",
      contextId,
      status: TaskState.TASK_STATE_UNSPECIFIED,
      pageToken: "",
      statusTimestampAfter: undefined,
    });
    expect([totalSize, ...tasks.map(({ id }) => id)]).toEqual([2, second.id, first.id]);
  });

  it("streams a response word by word", async () => {
    const client = await agent("chat");
    const events = await collect(client.sendMessageStream(send(message(["Hi"]))));
    const [task, working, ...rest] = events.map(({ payload }) => payload!);
    expect(task).toMatchObject({ $case: "task", value: { status: {} } });
    expect(working).toMatchObject({
      $case: "statusUpdate",
      value: { status: { state: TaskState.TASK_STATE_WORKING } },
    });
    const words = rest.filter((payload) => payload.$case === "artifactUpdate");
    expect(
      words
        .slice(0, -1)
        .flatMap(({ value }) => texts(value.artifact?.parts))
        .join(""),
    ).toBe("Hello there!");
    expect(words.map(({ value }) => value.append)).toEqual([
      false,
      ...words.slice(2).map(() => true),
      false,
    ]);
    expect(words.at(-1)?.value).toMatchObject({ lastChunk: true });
    expect(texts(words.at(-1)?.value.artifact?.parts)).toEqual(["Hello there!"]);
    expect(rest.at(-1)).toMatchObject({
      $case: "statusUpdate",
      value: { status: { state: TaskState.TASK_STATE_COMPLETED } },
    });
  });

  it("waits for the answer to a question, in the same task", async () => {
    const client = await agent("approval");
    const asked = asTask(await client.sendMessage(send(message([{ input: "x" }]))));
    expect(stateOf(asked)).toBe(TaskState.TASK_STATE_INPUT_REQUIRED);
    expect(texts(asked.status?.message?.parts)).toEqual([{ question: "Go on?" }]);
    const { id: taskId, contextId } = asked;
    const done = asTask(await client.sendMessage(send(message(["yes"], { taskId }))));
    expect(done).toMatchObject({ id: taskId, contextId });
    expect(stateOf(done)).toBe(TaskState.TASK_STATE_COMPLETED);
    expect(texts(done.artifacts[0]?.parts)).toEqual([
      { input: "x", trail: ["prepare", "answer:yes", "done"] },
    ]);
    expect(await client.getTask({ tenant: "", id: taskId })).toEqual(done);
    await expect(client.sendMessage(send(message(["again"], { taskId })))).rejects.toMatchObject({
      name: expect.stringContaining("UnsupportedOperation"),
    });
  });

  it("knows of questions that were answered, or passed over, by other clients", async () => {
    const client = await agent("approval");
    const ask = async (contextId = "") =>
      asTask(await client.sendMessage(send(message([{ input: "x" }], { contextId }))));
    const answered = await ask();
    await server.client.runs.wait(answered.contextId, "approval", { command: { resume: "ok" } });
    const done = await client.getTask({ tenant: "", id: answered.id });
    expect(stateOf(done)).toBe(TaskState.TASK_STATE_COMPLETED);
    const passed = await ask();
    const other = await ask(passed.contextId);
    expect(stateOf(other)).toBe(TaskState.TASK_STATE_INPUT_REQUIRED);
    expect(stateOf(await client.getTask({ tenant: "", id: passed.id }))).toBe(
      TaskState.TASK_STATE_CANCELED,
    );
    const listed = await client.listTasks({
      tenant: "",
      contextId: passed.contextId,
      status: TaskState.TASK_STATE_INPUT_REQUIRED,
      pageToken: "",
      statusTimestampAfter: undefined,
    });
    expect(listed.tasks.map(({ id }) => id)).toEqual([other.id]);
  });

  it("tells that a graph failed", async () => {
    const failed = asTask(await (await agent("failing")).sendMessage(send(message([{}]))));
    expect(stateOf(failed)).toBe(TaskState.TASK_STATE_FAILED);
    expect(texts(failed.status?.message?.parts)).toEqual(["The second node is broken"]);
  });

  it("follows and cancels a task that is worked on", async () => {
    const client = await agent("feed");
    const input = randomUUID();
    const begun = asTask(
      await client.sendMessage(send(message([{ input }]), { returnImmediately: true })),
    );
    expect([TaskState.TASK_STATE_SUBMITTED, TaskState.TASK_STATE_WORKING]).toContain(
      stateOf(begun),
    );
    await feed.entered(input);
    const { id } = begun;
    const following = client.resubscribeTask({ tenant: "", id });
    expect((await following.next()).value).toMatchObject({ payload: { $case: "task" } });
    const canceled = await client.cancelTask({ tenant: "", id, metadata: undefined });
    expect(stateOf(canceled)).toBe(TaskState.TASK_STATE_CANCELED);
    await feed.aborted(input);
    expect((await collect(following)).at(-1)?.payload).toMatchObject({
      $case: "statusUpdate",
      value: { status: { state: TaskState.TASK_STATE_CANCELED } },
    });
    await expect(client.cancelTask({ tenant: "", id, metadata: undefined })).rejects.toMatchObject({
      name: expect.stringContaining("TaskNotCancelable"),
    });
    await expect(collect(client.resubscribeTask({ tenant: "", id }))).rejects.toMatchObject({
      name: expect.stringContaining("UnsupportedOperation"),
    });
  });

  it("speaks version 0.3 to clients that do", async () => {
    const card = await request(server.url, "/.well-known/agent.json?assistant_id=plain");
    expect(card.json).toMatchObject({ protocolVersion: "0.3.0", preferredTransport: "JSONRPC" });
    const { supportedInterfaces: _new, ...old } = card.json as Record<string, unknown>;
    const { url } = parseLegacyAgentCard(old as never).supportedInterfaces[0]!;
    const client = new LegacyJsonRpcTransport({ endpoint: url });
    const task = asTask(await client.sendMessage(send(message(["Hi"]))));
    expect(stateOf(task)).toBe(TaskState.TASK_STATE_COMPLETED);
    const wire = await request(url, "", {
      json: { jsonrpc: "2.0", id: 1, method: "tasks/get", params: { id: task.id } },
    });
    expect(wire.json).toMatchObject({
      id: 1,
      result: {
        kind: "task",
        status: { state: "completed" },
        artifacts: [{ parts: [{ kind: "text", text: "1 so far" }] }],
      },
    });
    const events = await collect(client.sendMessageStream(send(message(["Hi"]))));
    expect(events.at(-1)?.payload).toMatchObject({
      value: { status: { state: TaskState.TASK_STATE_COMPLETED } },
    });
  });

  it("refuses what it cannot do, by name", async () => {
    const client = await agent("approval");
    const refusal = (own: Message, configuration?: object): Promise<string> =>
      client.sendMessage(send(own, configuration)).then(
        () => "no refusal",
        (error: Error) => error.message,
      );
    expect(await refusal(message(["text"]))).toContain("takes no text");
    expect(await refusal(message([]))).toContain("at least one part");
    expect(await refusal(message([{}], { contextId: "mine" }))).toContain("contextId");
    expect(await refusal(message([{}], { taskId: randomUUID() }))).toContain("Task not found");
    expect(await refusal(message([{}], { role: Role.ROLE_AGENT }))).toContain("message.role");
    expect(await refusal(message([{}]), { acceptedOutputModes: ["image/png"] })).toContain(
      "text/plain",
    );
    const rpc = async (json: unknown) =>
      (await request(server.url, "/a2a/plain", { json })).json as { error: { code: number } };
    expect((await rpc({ jsonrpc: "2.0", id: 1, method: "Nothing", params: {} })).error.code).toBe(
      -32601,
    );
    expect((await rpc([])).error.code).toBe(-32602);
    const foreign = asTask(await (await agent("plain")).sendMessage(send(message(["Hi"]))));
    await expect(client.getTask({ tenant: "", id: foreign.id })).rejects.toThrow("Task not found");
    expect((await request(server.url, "/a2a/nobody", { json: {} })).status).toBe(404);
  });
});
