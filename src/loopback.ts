import { AsyncLocalStorage } from "node:async_hooks";

/*
 * The SDK's `new Client()` without an address looks for a `fetch` at this place of the process, which the
 * official server puts there. Several servers can live in one process, so what stands there asks who is calling:
 * the graph or route of a server reaches that server.
 */
const FETCH = Symbol.for("langgraph_api:fetch");
/** Where the servers of a process find one another, whatever copy of this module each has. */
const DOORS = Symbol.for("aegra:loopback");

type Fetch = (input: string | URL | Request, init?: RequestInit) => Promise<Response>;

interface Door {
  fetch: Fetch | undefined;
}

interface Doors {
  open: Set<Door>;
  caller: AsyncLocalStorage<Door>;
  /** What stood in our place before. */
  before: unknown;
}

/** A server's place among those its own process can reach without a network. */
export interface Loopback {
  /** What is called in `work`, now or later, reaches this server by a client without an address. */
  within<T>(work: () => T): T;
  /** The server's own handler, once there is one. */
  bind(handle: (request: Request) => Response | Promise<Response>): void;
  /** Safe to call twice. */
  close(): void;
}

/**
 * Opens the door before the project's modules are loaded, so that a client made while loading finds it. A call
 * that comes from no server's work reaches the only server there is, and is refused where there are several.
 */
export function openLoopback(): Loopback {
  const place = globalThis as { [DOORS]?: Doors; [FETCH]?: unknown };
  const doors = (place[DOORS] ??= install(place));
  const door: Door = { fetch: undefined };
  doors.open.add(door);
  return {
    within: (work) => doors.caller.run(door, work),
    bind(handle) {
      door.fetch = (input, init) => callInProcess(handle, new Request(input, init));
    },
    close() {
      if (!doors.open.delete(door) || doors.open.size > 0) return;
      if (doors.before === undefined) delete place[FETCH];
      else place[FETCH] = doors.before;
      delete place[DOORS];
    },
  };
}

function install(place: { [FETCH]?: unknown }): Doors {
  const doors: Doors = { open: new Set(), caller: new AsyncLocalStorage(), before: place[FETCH] };
  const call: Fetch = async (input, init) => find(doors)(input, init);
  place[FETCH] = call;
  return doors;
}

function find({ caller, open }: Doors): Fetch {
  const called = caller.getStore();
  const door = called && open.has(called) ? called : open.size === 1 ? [...open][0] : undefined;
  if (door?.fetch) return door.fetch;
  throw new Error(
    open.size > 1
      ? "Several Aegra servers run in this process, and this client was not called by the work of one of them. Give it an apiUrl."
      : "The server does not answer: it is starting or has been closed.",
  );
}

/** As the network would: an aborted request rejects, and a reader that goes away is noticed. */
async function callInProcess(
  handle: (request: Request) => Response | Promise<Response>,
  request: Request,
): Promise<Response> {
  const { signal } = request;
  signal.throwIfAborted();
  const answered = Promise.resolve(handle(request));
  const response = await untilAborted(answered, signal);
  if (!response.body) return response;
  const body = response.body.pipeThrough(new TransformStream<Uint8Array, Uint8Array>(), { signal });
  return new Response(body, response);
}

function untilAborted(answered: Promise<Response>, signal: AbortSignal): Promise<Response> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      reject(signal.reason as Error);
      void answered.then((response) => response.body?.cancel()).catch(() => {});
    };
    signal.addEventListener("abort", onAbort, { once: true });
    void answered.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
