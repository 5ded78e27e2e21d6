import { randomBytes } from "node:crypto";
import type { CommandCaller, Commands } from "../engine/commands.ts";
import { parse, toErrorAnswer } from "../engine/commands.ts";
import { CommandRefusal } from "../engine/command-refusal.ts";
import { isWanted, seqOf, toEventBatches, toWire } from "../engine/thread-events.ts";
import type { ThreadStreams } from "../engine/thread-stream.ts";
import type { Logger } from "../observability/log.ts";
import { Command, Reconnect, Unsubscribe, type CommandAnswer } from "../protocol/commands.ts";
import { EventFilter, type AgentStatus, type ThreadEvent } from "../protocol/events.ts";
import type { Filter } from "../protocol/filters.ts";
import { toRefusal } from "./problem.ts";
import type { Socket, SocketSession } from "./web-socket.ts";

/** Commands that wait for their turn; a client that sends more does not read the answers. */
const MAX_WAITING = 100;

export interface ProtocolSessionOptions {
  threadId: string;
  commands: Commands;
  streams: ThreadStreams;
  caller: CommandCaller;
  serialise: (value: unknown) => string;
  log: Logger;
}

/**
 * The v2 protocol over a web socket: commands in, answers and events out. Commands are carried out one after
 * another, so that the answer to a subscription comes before its first event. Subscriptions end with the socket.
 *
 * All subscriptions of a socket share one reader of the thread, and an event that several of them want is sent
 * once: clients take the end of a run, whichever subscription brings it, for the end of what all of them get.
 * A new subscription sends the reader back to the beginning; the others have a cursor that skips what they had.
 */
export function openProtocolSession(
  options: ProtocolSessionOptions,
  socket: Socket,
): SocketSession {
  return new ProtocolSession(options, socket);
}

interface Subscription {
  filter: EventFilter;
  /** The last event that was sent, or was not wanted. */
  cursor: number;
}

class ProtocolSession implements SocketSession {
  readonly #options: ProtocolSessionOptions;
  readonly #socket: Socket;
  readonly #subscriptions = new Map<string, Subscription>();
  #reader = new AbortController();
  #turn: Promise<void> = Promise.resolve();
  #waiting = 0;
  #over = false;

  constructor(options: ProtocolSessionOptions, socket: Socket) {
    this.#options = options;
    this.#socket = socket;
  }

  receive(text: string): void {
    if (this.#waiting >= MAX_WAITING) {
      this.#socket.close(4_429, "Too many commands wait for their answers.");
      return;
    }
    this.#waiting += 1;
    this.#turn = this.#turn
      .then(() => this.#handle(text))
      .catch((error: unknown) => this.#options.log.error({ err: error }, "web socket"))
      .finally(() => {
        this.#waiting -= 1;
      });
  }

  end(): void {
    this.#over = true;
    this.#reader.abort();
    this.#subscriptions.clear();
  }

  async #handle(text: string): Promise<void> {
    if (this.#over) return;
    const command = toCommand(text);
    if (command.type === "error") return this.#send(command);
    const { id, method } = command.command;
    try {
      if (method === "subscription.subscribe") return await this.#subscribe(command.command);
      if (method === "subscription.unsubscribe") return await this.#unsubscribe(command.command);
      if (method === "subscription.reconnect") return await this.#reconnect(command.command);
      const { commands, threadId, caller } = this.#options;
      await this.#send(await commands.execute(threadId, command.command, caller));
    } catch (error) {
      await this.#send(this.#toAnswer(id, error));
    }
  }

  #toAnswer(id: number, error: unknown): CommandAnswer {
    try {
      return toErrorAnswer(id, error);
    } catch (failure) {
      const { code, message } = toRefusal(failure);
      if (code === "unavailable") return { type: "error", id, error: "unknown_error", message };
      this.#options.log.error(
        { err: failure, thread_id: this.#options.threadId },
        "command failed",
      );
      return { type: "error", id, error: "unknown_error", message: "The command failed." };
    }
  }

  async #subscribe(command: Command): Promise<void> {
    const filter = parse(EventFilter, command.params);
    const visible = await this.#options.caller.mayRead();
    const subscriptionId = toSubscriptionId(filter);
    await this.#succeed(command.id, { subscription_id: subscriptionId });
    this.#subscriptions.set(subscriptionId, { filter, cursor: 0 });
    this.#read(visible);
  }

  async #unsubscribe(command: Command): Promise<void> {
    const { subscription_id: id } = parse(Unsubscribe, command.params);
    if (!this.#subscriptions.delete(id)) {
      throw new CommandRefusal("no_such_subscription", `Unknown subscription: ${id.slice(0, 500)}`);
    }
    if (this.#subscriptions.size === 0) this.#reader.abort();
    await this.#succeed(command.id, {});
  }

  /** Takes up subscriptions of an earlier socket: what they want is in their ids. */
  async #reconnect(command: Command): Promise<void> {
    const params = parse(Reconnect, command.params);
    const { commands, threadId, caller } = this.#options;
    const after = params.last_event_id === undefined ? 0 : seqOf(params.last_event_id);
    if (after === undefined) {
      throw new CommandRefusal("invalid_argument", "last_event_id: is not the id of an event.");
    }
    const answer = await commands.execute(
      threadId,
      { id: command.id, method: "agent.getTree", params: { run_id: params.run_id } },
      caller,
    );
    if (answer.type === "error") return this.#send(answer);
    const wanted = (params.subscriptions ?? []).map((id) => ({
      id,
      filter: fromSubscriptionId(id),
    }));
    const restored = wanted.filter(({ filter }) => filter !== undefined);
    const visible = await caller.mayRead();
    await this.#succeed(command.id, {
      restored: restored.length > 0 && restored.length === wanted.length,
      current_namespaces: toNamespaces(answer.result["tree"] as Tree),
    });
    for (const { id, filter } of restored) {
      this.#subscriptions.set(id, { filter: filter!, cursor: after });
    }
    this.#read(visible);
  }

  /** Reads the thread from where the furthest behind of the subscriptions is. */
  #read(visible: Filter | undefined): void {
    this.#reader.abort();
    if (this.#subscriptions.size === 0) return;
    const reader = new AbortController();
    this.#reader = reader;
    const { threadId, log } = this.#options;
    void this.#pump(visible, reader.signal).catch((error: unknown) => {
      if (reader.signal.aborted) return;
      log.error({ err: error, thread_id: threadId }, "a subscription failed");
      // The client opens another socket, and subscribes again.
      this.#socket.close(1_011, "A subscription failed.");
    });
  }

  async #pump(visible: Filter | undefined, signal: AbortSignal): Promise<void> {
    const { streams, threadId, serialise } = this.#options;
    const after = Math.min(...[...this.#subscriptions.values()].map(({ cursor }) => cursor));
    const pieces = streams.follow(threadId, { after, filter: visible, signal });
    for await (const batch of toEventBatches(pieces, serialise)) {
      if (signal.aborted) return;
      const wanted = batch.filter((event) => this.#take(event));
      if (wanted.length > 0) await this.#socket.send(...wanted.map(toWire));
    }
  }

  /** Whether a subscription wants an event that it has not had. */
  #take(event: ThreadEvent): boolean {
    let wanted = false;
    for (const subscription of this.#subscriptions.values()) {
      if (event.seq <= subscription.cursor) continue;
      subscription.cursor = event.seq;
      wanted ||= isWanted(event, subscription.filter);
    }
    return wanted;
  }

  #succeed(id: number, result: Record<string, unknown>): Promise<void> {
    return this.#send({ type: "success", id, result });
  }

  #send(answer: CommandAnswer): Promise<void> {
    return this.#socket.send(this.#options.serialise(answer));
  }
}

type Parsed = { type: "command"; command: Command } | (CommandAnswer & { type: "error" });

function toCommand(text: string): Parsed {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return invalid(null, "Commands must be JSON.");
  }
  const parsed = Command.safeParse(json);
  if (parsed.success) return { type: "command", command: parsed.data };
  const id = (json as { id?: unknown } | null)?.id;
  const known = typeof id === "number" && Number.isInteger(id) ? id : null;
  return invalid(known, "A command is {id, method, params}: a whole number, a string, an object.");
}

function invalid(id: number | null, message: string): CommandAnswer & { type: "error" } {
  return { type: "error", id, error: "invalid_argument", message };
}

function toSubscriptionId(filter: EventFilter): string {
  const wanted = Buffer.from(JSON.stringify(filter)).toString("base64url");
  return `${randomBytes(9).toString("base64url")}.${wanted}`;
}

function fromSubscriptionId(id: string): EventFilter | undefined {
  try {
    const [, wanted = ""] = id.split(".");
    return EventFilter.parse(JSON.parse(Buffer.from(wanted, "base64url").toString()));
  } catch {
    return undefined;
  }
}

interface Tree {
  namespace: readonly string[];
  status: AgentStatus;
  children?: Tree[];
}

function toNamespaces({ namespace, status, children = [] }: Tree): object[] {
  return [{ namespace, status }, ...children.flatMap(toNamespaces)];
}
