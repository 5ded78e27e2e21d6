import { z } from "zod";
import type { Commands } from "../../engine/commands.ts";
import type { RunEngine } from "../../engine/runs.ts";
import { isWanted, toThreadEvents, toWire } from "../../engine/thread-events.ts";
import type { ThreadPiece, ThreadStreams } from "../../engine/thread-stream.ts";
import type { Logger } from "../../observability/log.ts";
import { Uuid } from "../../protocol/common.ts";
import { EventStreamRequest } from "../../protocol/events.ts";
import { openProtocolSession } from "../protocol-session.ts";
import { route, type Route } from "../route.ts";
import { toCommandCaller } from "./commands.ts";
import { toEventStream, type ServerSentEvent } from "../sse.ts";

const Params = z.object({ thread_id: Uuid });

export interface ThreadStreamRouteDeps {
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
  for await (const piece of pieces) {
    const events = toThreadEvents(piece, serialise).filter(
      (event) => event.seq > since && isWanted(event, asked),
    );
    if (events.length === 0) continue;
    yield events.map((event) => ({
      id: event.event_id,
      event: event.method,
      data: toWire(event),
    }));
  }
}
