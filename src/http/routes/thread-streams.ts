import { z } from "zod";
import { ServerError } from "../../errors.ts";
import type { Commands } from "../../engine/commands.ts";
import type { RunEngine } from "../../engine/runs.ts";
import { isWanted, toEventBatches, toWire } from "../../engine/thread-events.ts";
import { toThreadModeEvents } from "../../engine/thread-modes.ts";
import type { ThreadPiece, ThreadStreams } from "../../engine/thread-stream.ts";
import type { Logger } from "../../observability/log.ts";
import { Uuid } from "../../protocol/common.ts";
import { EventStreamRequest } from "../../protocol/events.ts";
import { ThreadStreamQuery, type Thread, type ThreadStreamMode } from "../../protocol/threads.ts";
import { patiently } from "../../storage/persistence.ts";
import type { ThreadRepository } from "../../storage/threads.ts";
import { openProtocolSession } from "../protocol-session.ts";
import { route, type Route } from "../route.ts";
import { toCommandCaller } from "./commands.ts";
import { toEventStream, type ServerSentEvent } from "../sse.ts";

const Params = z.object({ thread_id: Uuid });

export interface ThreadStreamRouteDeps {
  threads: ThreadRepository;
  streams: ThreadStreams;
  commands: Commands;
  engine: RunEngine;
  serialise: (value: unknown) => string;
  log: Logger;
}

/** What happens on a thread, across its runs. */
export function threadStreamRoutes(deps: ThreadStreamRouteDeps): Route[] {
  return [
    route({
      method: "post",
      path: "/threads/:thread_id/stream/events",
      summary: "Follow a thread in the events of the v2 protocol, from the past on and for ever",
      tag: "Threads",
      permission: "threads:read",
      params: Params,
      body: EventStreamRequest,
      answer: { status: 200, description: "The events", stream: true },
      async handle({ params, body, filter }) {
        const gone = new AbortController();
        const pieces = deps.streams.follow(params.thread_id, {
          after: body.since ?? 0,
          filter,
          signal: gone.signal,
        });
        return toEventStream(toProtocolStream(pieces, body, deps.serialise), {
          headers: {},
          onGone: () => gone.abort(),
        });
      },
    }),
    route({
      method: "get",
      path: "/threads/:thread_id/stream",
      summary:
        "Join every run of a thread; Last-Event-ID continues after an event, -1 is from the first run",
      tag: "Threads",
      permission: "threads:read",
      params: Params,
      query: ThreadStreamQuery,
      headers: { "Last-Event-ID": "The last event that was seen; -1 is from the first run on." },
      answer: { status: 200, description: "The events of the runs", stream: true },
      async handle({ params, query, headers, filter }) {
        const thread = await deps.threads.get(params.thread_id, filter);
        if (!thread) {
          throw new ServerError("not_found", `Thread with ID ${params.thread_id} not found`);
        }
        const { thread_id: threadId } = thread;
        const gone = new AbortController();
        const after = toCursor(headers.get("last-event-id")) ?? (await deps.streams.now(threadId));
        const pieces = deps.streams.follow(threadId, { after, filter, signal: gone.signal });
        return toEventStream(
          toModeStream(pieces, { deps, thread, after, modes: query.stream_mode }),
          {
            headers: { Location: `/threads/${threadId}/stream` },
            onGone: () => gone.abort(),
          },
        );
      },
    }),
    route({
      method: "get",
      path: "/threads/:thread_id/stream/events",
      summary: "Open a web socket for commands and events of the v2 protocol",
      tag: "Threads",
      permission: "threads:read",
      // Each command asks about what it does.
      value: "by-route",
      socket: true,
      params: Params,
      answer: { status: 101, description: "The socket" },
      async handle({ params, ...caller }) {
        const { thread_id: threadId } = params;
        const asks = toCommandCaller(deps.engine, threadId, caller);
        return {
          session: (socket) => openProtocolSession({ ...deps, threadId, caller: asks }, socket),
        };
      },
    }),
  ];
}

async function* toProtocolStream(
  pieces: AsyncGenerator<ThreadPiece, void, void>,
  asked: EventStreamRequest,
  serialise: (value: unknown) => string,
): AsyncGenerator<ServerSentEvent[], void, void> {
  const since = asked.since ?? 0;
  for await (const batch of toEventBatches(pieces, serialise)) {
    const events = batch.filter((event) => event.seq > since && isWanted(event, asked));
    if (events.length === 0) continue;
    yield events.map((event) => ({
      id: event.event_id,
      event: event.method,
      data: toWire(event),
    }));
  }
}

async function* toModeStream(
  pieces: AsyncGenerator<ThreadPiece, void, void>,
  reader: {
    deps: ThreadStreamRouteDeps;
    thread: Thread;
    after: number;
    modes: readonly ThreadStreamMode[];
  },
): AsyncGenerator<ServerSentEvent[], void, void> {
  const { deps, thread, after, modes } = reader;
  let written = thread.state_updated_at;
  for await (const piece of pieces) {
    const events: ServerSentEvent[] = toThreadModeEvents(piece, modes, deps.serialise).filter(
      ({ id }) => id > after,
    );
    if (modes.includes("state_update") && (piece.kind === "quiet" || piece.kind === "ended")) {
      const now = await patiently(() => deps.threads.get(thread.thread_id, undefined));
      if (now && now.state_updated_at > written) {
        written = now.state_updated_at;
        // Without an id: it has no place among the events of the runs, and the next one says more.
        events.push({ event: "state_update", data: deps.serialise(toStateUpdate(now)) });
      }
    }
    if (events.length > 0) yield events;
  }
}

function toStateUpdate(thread: Thread): object {
  const { thread_id, status, values, interrupts, state_updated_at } = thread;
  return { thread_id, status, values, interrupts, state_updated_at };
}

/** The place after which a client goes on; 0 where it wants all, `undefined` where it says nothing. */
function toCursor(lastEventId: string | null): number | undefined {
  if (lastEventId === null || lastEventId === "") return undefined;
  if (lastEventId === "-1" || lastEventId === "-") return 0;
  if (/^\d{1,16}$/.test(lastEventId)) return Number(lastEventId);
  throw new ServerError(
    "invalid_request",
    `Last-Event-ID: "${lastEventId.slice(0, 64)}" is not the id of an event of a thread; use -1 for all.`,
  );
}
