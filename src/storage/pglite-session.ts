/*
 * PGlite is one PostgreSQL session. This lets several connections of the wire protocol share it:
 *
 *   free ──a connection's bytes arrive──> owned ──ReadyForQuery "idle"──> free
 *                                           └──ReadyForQuery "in transaction", or none──> owned
 *
 * While a connection owns the session, only its bytes are executed and the others' wait in their order. So a
 * transaction is never interleaved, and a connection that holds none never blocks another.
 */

const READY_FOR_QUERY = 0x5a; // Z
const NOTIFICATION = 0x41; // A
const IDLE = 0x49; // I

export interface PgliteSessionOptions {
  /** Executes protocol bytes; `onData` gets pieces of the answer that are only valid during the call. */
  execute: (bytes: Uint8Array, onData: (piece: Uint8Array) => void) => Promise<void>;
  /** Gets the answer to one `receive`, whole messages in a buffer of their own. */
  reply: (connection: number, bytes: Uint8Array<ArrayBuffer>) => void;
  /** The engine itself failed: no connection can be served any more. */
  onFailure: (error: unknown) => void;
}

interface Request {
  connection: number;
  bytes: Uint8Array;
}

export class PgliteSession {
  readonly #options: PgliteSessionOptions;
  #queue: Request[] = [];
  #owner: number | undefined;
  #running = false;
  readonly #whenIdle: (() => void)[] = [];
  #listening: number | undefined;

  constructor(options: PgliteSessionOptions) {
    this.#options = options;
  }

  /** Queues a connection's bytes: whole messages. */
  receive(connection: number, bytes: Uint8Array): void {
    this.#queue.push({ connection, bytes });
    this.#run();
  }

  /** From now on this connection gets the session's notifications: they belong to the session, not to a query. */
  notify(connection: number): void {
    this.#listening = connection;
  }

  /** The connection is gone. What it had not committed is rolled back. */
  drop(connection: number): void {
    this.#queue = this.#queue.filter((request) => request.connection !== connection);
    if (this.#listening === connection) this.#listening = undefined;
    if (this.#owner === connection) {
      this.#queue.unshift({ connection, bytes: simpleQuery("ROLLBACK") });
    }
    this.#run();
  }

  /** Resolves when nothing runs. */
  async idle(): Promise<void> {
    if (this.#running) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  #run(): void {
    if (this.#running) return;
    this.#running = true;
    this.#drain().catch((error: unknown) => this.#options.onFailure(error));
  }

  async #drain(): Promise<void> {
    for (let next = this.#next(); next; next = this.#next()) {
      this.#owner = next.connection;
      await this.#answer(next);
    }
    // In the same turn as the look at the empty queue: what arrives later must find that nothing runs.
    this.#running = false;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  #next(): Request | undefined {
    const owner = this.#owner;
    if (owner === undefined) return this.#queue.shift();
    const index = this.#queue.findIndex((request) => request.connection === owner);
    return index < 0 ? undefined : this.#queue.splice(index, 1)[0];
  }

  async #answer({ connection, bytes }: Request): Promise<void> {
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    await this.#options.execute(bytes, (piece) => pieces.push(new Uint8Array(piece)));
    const answer = join(pieces);
    const { status, notifications } = scan(answer);
    if (status === IDLE) this.#owner = undefined;
    if (notifications.length === 0) {
      if (answer.length > 0) this.#options.reply(connection, answer);
      return;
    }
    const rest = without(answer, notifications);
    if (rest.length > 0) this.#options.reply(connection, rest);
    if (this.#listening !== undefined) {
      const told = join(notifications.map(([start, end]) => answer.slice(start, end)));
      this.#options.reply(this.#listening, told);
    }
  }
}

/** Reads the heads of an answer's messages: the last transaction status, and where the notifications are. */
function scan(answer: Uint8Array): {
  status: number | undefined;
  notifications: [number, number][];
} {
  const view = new DataView(answer.buffer, answer.byteOffset, answer.byteLength);
  const notifications: [number, number][] = [];
  let status: number | undefined;
  for (let at = 0; at + 5 <= answer.length;) {
    const end = at + 1 + view.getInt32(at + 1);
    // A transaction's status counts only if nothing follows: what follows may have begun another.
    status = undefined;
    if (answer[at] === READY_FOR_QUERY) status = answer[at + 5];
    else if (answer[at] === NOTIFICATION) notifications.push([at, end]);
    at = end;
  }
  return { status, notifications };
}

function join(pieces: Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  const [only] = pieces;
  if (only && pieces.length === 1) return only;
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

function without(
  bytes: Uint8Array<ArrayBuffer>,
  ranges: [number, number][],
): Uint8Array<ArrayBuffer> {
  const kept: Uint8Array<ArrayBuffer>[] = [];
  let from = 0;
  for (const [start, end] of ranges) {
    kept.push(bytes.slice(from, start));
    from = end;
  }
  kept.push(bytes.slice(from));
  return join(kept);
}

function simpleQuery(text: string): Uint8Array {
  const body = Buffer.from(`${text}\0`);
  const message = Buffer.alloc(5 + body.length);
  message.write("Q", 0);
  message.writeInt32BE(4 + body.length, 1);
  body.copy(message, 5);
  return message;
}
