import { Duplex } from "node:stream";
import type { PgliteRequest } from "./pglite-worker.ts";

/** How a connection reaches the session: a way to send, and a place for the answers to arrive. */
export interface PgliteChannel {
  send(message: PgliteRequest, transfer: ArrayBuffer[]): void;
  /** The answers to `connection` go to `onBytes`; `onEnd` tells it that the database is gone. */
  attach(connection: number, onBytes: (bytes: Buffer) => void, onEnd: (error: Error) => void): void;
  detach(connection: number): void;
}

/**
 * What `pg` takes for a socket (its `stream` option): one connection of the wire protocol to PGlite. The
 * start-up and the login are answered here, since there is nobody to log in to.
 */
export class PgliteStream extends Duplex {
  readonly #channel: PgliteChannel;
  readonly #connection: number;
  readonly #notify: boolean;
  #started = false;

  constructor(options: { channel: PgliteChannel; connection: number; notify: boolean }) {
    super({ allowHalfOpen: false });
    this.#channel = options.channel;
    this.#connection = options.connection;
    this.#notify = options.notify;
  }

  connect(): this {
    this.#channel.attach(
      this.#connection,
      (bytes) => this.push(bytes),
      (error) => this.destroy(error),
    );
    if (this.#notify) this.#channel.send({ type: "notify", connection: this.#connection }, []);
    process.nextTick(() => this.emit("connect"));
    return this;
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error) => void): void {
    this.#forward([chunk]);
    done();
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error) => void): void {
    this.#forward(chunks.map(({ chunk }) => chunk));
    done();
  }

  override _final(done: (error?: Error) => void): void {
    this.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#channel.detach(this.#connection);
    done(error);
  }

  /** `pg` corks the messages of one statement, so a write is what can be answered as a whole. */
  #forward(chunks: Buffer[]): void {
    const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
    let at = 0;
    for (const chunk of chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    if (!this.#started) {
      this.#started = true;
      this.push(LOGGED_IN);
      return;
    }
    // Terminate would end the session the other connections use; the end of the stream says it all.
    if (bytes[0] === TERMINATE) return;
    this.#channel.send({ type: "bytes", connection: this.#connection, bytes }, [bytes.buffer]);
  }
}

const TERMINATE = 0x58; // X
/** AuthenticationOk, then ReadyForQuery "idle". */
const LOGGED_IN = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49]);
