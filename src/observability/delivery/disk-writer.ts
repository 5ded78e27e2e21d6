import { closeSync, openSync, writevSync } from "node:fs";
import { join } from "node:path";
import { firstPart, probeDisk, syncFolder } from "./disk-files.ts";
import { DiskTurns } from "./disk-turns.ts";
import { Segment, type SpooledRecord } from "./segment.ts";
import { frame, SEGMENT_MAGIC } from "./segment-format.ts";
import { createSegmentNames, openWriterFolder, type WriterFolder } from "./writer-folder.ts";

/*
 * The disk:   opening ──▶ open ──a write fails──▶ away ──tried again every few seconds──▶ returning ──▶ open
 *                                                  ▲────────────a write fails────────────────┘
 *
 * A disk that does not answer in time is away until it answers.
 *
 * Records wait in a queue for the next write, of which there is one at a time; what comes meanwhile makes the one
 * after it. A small write is made at once, on the event loop: it is a copy into the kernel's memory, and takes less
 * than handing it to another thread. Once such a write is slow, the disk is not trusted for a while, and writes
 * go through a thread, so that a disk that stalls stalls nothing but traces.
 */

export interface DiskWriterOptions {
  /** The spool folder, in which this writer makes its own. */
  folder: string;
  /** A segment that is as large is ended. */
  segmentBytes: number;
  fsync: boolean;
  /** How often a disk that takes nothing is tried again. */
  retryMs: number;
  /** How long the disk may take for one thing before it counts as one that takes nothing; and at the end. */
  answerMs: { ever: number; atEnd: number };
  /** Once the disk has been silent for as long as this, nobody waits for it any more. */
  patienceMs: number;
  /** The folder is there, for the first time or again. */
  onOpen: () => void;
  onSegment: (segment: Segment) => void;
  /** Whether the files together are over their limit. */
  isOverfull: () => boolean;
  /** Awaited before the next write where a segment has ended; told when nothing is left to write. */
  onWritten: () => Promise<void>;
  /** The disk takes nothing: these records were not written. `first` if it did take something before. */
  onAway: (records: readonly SpooledRecord[], error: unknown, first: boolean) => void;
  /** Whether records wait in memory for the disk. */
  hasInMemory: () => boolean;
  /** Gives what had to wait in memory, now that it can be written. */
  takeFromMemory: () => Promise<readonly SpooledRecord[]>;
  /** Whether records are under way that are in memory alone. */
  hasUnderWay: () => boolean;
  /** Gives those; they stay under way. */
  underWay: () => readonly SpooledRecord[];
  /** Told that they are in a file by now. */
  onKept: (records: readonly SpooledRecord[], segment: Segment) => void;
  /** Somebody removed files: lets go of them, and gives the records that were to be sent and can be read. */
  saveRemoved: () => Promise<readonly SpooledRecord[]>;
  /** The disk takes records again, and has taken those that waited. */
  onBack: () => void;
}

/** What may wait for a disk that is slow, before it counts as one that takes nothing. */
const MAX_UNWRITTEN_BYTES = 32 * 1_024 * 1_024;
/** How long records wait for more to be written with, and how much is enough. */
const COALESCE_MS = 2;
const WRITE_NOW_BYTES = 256 * 1_024;
/** The most that is written on the event loop, how slow that may be, and for how long it is then not tried again. */
const AT_ONCE_BYTES = 1_024 * 1_024;
const SLOW_MS = 10;
const DISTRUST_MS = 30_000;
const REMOVED = "its files were removed";

/** Appends records to segment files. It opens in the background; `close` ends it. */
export class DiskWriter {
  readonly #options: DiskWriterOptions;
  readonly #nextName = createSegmentNames();
  readonly #disk: DiskTurns;
  #folder: WriterFolder | undefined;
  #opening: Promise<WriterFolder> | undefined;
  #current: Segment | undefined;
  #queue: SpooledRecord[] = [];
  #queueBytes = 0;
  #writing: SpooledRecord[] = [];
  #draining: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  /** Those that wait for what is being written, and for what is in the queue. */
  #writers: (() => void)[] = [];
  #waiters: (() => void)[] = [];
  #trustAgainAt = 0;
  #away = false;
  /** The disk takes records again, but has not taken all that waited. */
  #returning = false;
  #closed = false;
  readonly #onExit = (): void => this.#writeAtExit();

  constructor(options: DiskWriterOptions) {
    this.#options = options;
    this.#disk = new DiskTurns(options.answerMs.ever);
    process.on("exit", this.#onExit);
    this.#writeNow();
  }

  /** Once it is open. */
  get folder(): WriterFolder | undefined {
    return this.#folder;
  }

  /** Whether records can be added. Not before those that had to wait in memory, which came earlier. */
  get takes(): boolean {
    return !this.#away && this.#queueBytes <= MAX_UNWRITTEN_BYTES && !this.#options.hasInMemory();
  }

  get unwritten(): number {
    return this.#queue.length + this.#writing.length;
  }

  /** When the oldest that is not written was taken in. */
  get oldest(): number | undefined {
    return (this.#writing[0] ?? this.#queue[0])?.time;
  }

  /** What comes within a moment makes one write. */
  add(record: SpooledRecord): void {
    this.#queue.push(record);
    this.#queueBytes += record.bytes.length;
    if (this.#queueBytes > WRITE_NOW_BYTES) this.#writeNow();
    else if (this.#draining === undefined)
      this.#timer ??= setTimeout(() => this.#writeNow(), COALESCE_MS);
  }

  /** Whether the disk owes an answer that it did not give in time. */
  get hangs(): boolean {
    return this.#disk.hung !== undefined;
  }

  /** Resolves when what was added is written, or turned away; at once while the disk is silent. Never rejects. */
  async written(): Promise<void> {
    if (this.unwritten === 0 || this.#disk.silentMs > this.#options.patienceMs) return;
    const written = new Promise<void>((resolve) => {
      (this.#queue.length === 0 ? this.#writers : this.#waiters).push(resolve);
    });
    this.#writeNow();
    await written;
  }

  /** Ends the current segment if all of it is settled and nothing is about to be added. */
  endIdleSegment(): void {
    const current = this.#current;
    if (current === undefined || this.#draining !== undefined || !current.spent) return;
    current.sealed = true;
    this.#current = undefined;
  }

  /** Lets go of a segment that cannot be read, and with that not be trusted. */
  forget(segment: Segment): void {
    if (segment === this.#current) this.#current = undefined;
  }

  /** Writes what is left, with `more`. The folder is still to be released. */
  async close(more: readonly SpooledRecord[]): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#disk.hurry(this.#options.answerMs.atEnd);
    while (this.#draining !== undefined) await this.#draining;
    const saved = await this.#disk.take(() => this.#leaveRemoved()).catch(() => []);
    if (saved.length > 0 || this.#options.hasUnderWay())
      this.#options.onAway([], new Error(REMOVED), !this.#away);
    this.#queue = [...saved, ...more, ...this.#queue];
    this.#draining ??= this.#drain();
    while (this.#draining !== undefined) await this.#draining;
    process.off("exit", this.#onExit);
    const current = this.#current;
    if (current !== undefined) await this.#disk.take(() => current.seal()).catch(() => {});
  }

  #writeNow(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#draining !== undefined || this.#writeAtOnce()) return;
    if (this.#queue.length > 0 || this.#folder === undefined) this.#draining = this.#drain();
  }

  /** Whether everything is written; what was not is still in the queue. */
  #writeAtOnce(): boolean {
    const began = performance.now();
    const may = !this.#options.fsync && !this.#away && began > this.#trustAgainAt;
    if (!may || this.#folder === undefined || this.#queueBytes > AT_ONCE_BYTES) return false;
    if (this.#queue.length === 0) return true;
    try {
      const segment = this.#current ?? this.#begin(Segment.createSync(this.#newPath()));
      // Where room has to be made, it is made before more is written.
      if (this.#options.isOverfull()) return false;
      segment.appendSync(this.#queue);
      if (segment.size >= this.#options.segmentBytes) this.#end(segment);
    } catch {
      // The other way of writing meets the same error, and deals with it.
      return false;
    }
    if (performance.now() - began > SLOW_MS) this.#trustAgainAt = performance.now() + DISTRUST_MS;
    this.#queue = [];
    this.#queueBytes = 0;
    for (const wake of this.#waiters.splice(0)) wake();
    return true;
  }

  async #drain(): Promise<void> {
    let well = true;
    while (well && (await this.#hasMore())) well = await this.#writeQueue();
    if (well && this.#returning) {
      this.#returning = false;
      this.#options.onBack();
    }
    this.#draining = undefined;
    // What came since the last look.
    if (well && this.#queue.length > 0) this.#writeNow();
    else void this.#options.onWritten();
  }

  /** Whether something is to be written: what is in the queue, else what had to wait in memory. */
  async #hasMore(): Promise<boolean> {
    if (this.#queue.length > 0 || this.#folder === undefined) return true;
    if (this.#options.hasUnderWay()) return true;
    const waited = this.#options.hasInMemory() ? await this.#options.takeFromMemory() : [];
    // What is in the queue by now came later.
    if (waited.length > 0) this.#queue = [...waited, ...this.#queue];
    return this.#queue.length > 0;
  }

  /** Writes the queue, part by part; what could not be written is turned away. */
  async #writeQueue(): Promise<boolean> {
    this.#writing = this.#queue;
    this.#writers = this.#waiters;
    this.#queue = [];
    this.#waiters = [];
    this.#queueBytes = 0;
    let failure: { error: unknown } | undefined;
    try {
      await this.#disk.take(() => this.#openFolder());
      // They came before all that is written now.
      if (this.#options.hasUnderWay()) await this.#keep(this.#options.underWay());
      while (this.#writing.length > 0)
        await this.#disk.take((signal) => this.#write(firstPart(this.#writing), signal));
    } catch (error) {
      failure = { error };
    }
    const unwritten = this.#writing;
    this.#writing = [];
    for (const wake of this.#writers.splice(0)) wake();
    if (failure === undefined) return true;
    await this.#turnAway(unwritten, failure.error);
    return false;
  }

  async #write(records: readonly SpooledRecord[], signal: AbortSignal): Promise<void> {
    const folder = await this.#openFolder();
    const current = this.#current ?? this.#begin(await this.#createSegment(signal));
    if (this.#options.fsync && current.records === 0) await syncFolder(folder);
    if (this.#options.isOverfull()) await this.#options.onWritten();
    signal.throwIfAborted();
    await current.append(records, { fsync: this.#options.fsync, signal });
    this.#writing = this.#writing.slice(records.length);
    if (current.size < this.#options.segmentBytes) return;
    this.#current = undefined;
    await current.seal();
    await this.#options.onWritten();
  }

  /** Puts records into a file of their own that are sent from memory all the same: it is for the next process. */
  async #keep(records: readonly SpooledRecord[]): Promise<void> {
    const { fsync } = this.#options;
    const segment = await this.#disk.take((signal) => this.#createSegment(signal));
    this.#options.onSegment(segment);
    try {
      if (fsync) await this.#disk.take(async () => syncFolder(await this.#openFolder()));
      for (let rest = records; rest.length > 0;) {
        const part = firstPart(rest);
        await this.#disk.take((signal) => segment.append(part, { fsync, taken: true, signal }));
        this.#options.onKept(part, segment);
        rest = rest.slice(part.length);
      }
    } finally {
      await this.#seal(segment);
    }
  }

  async #createSegment(signal: AbortSignal): Promise<Segment> {
    const segment = await Segment.create(this.#newPath());
    if (signal.aborted) await segment.remove();
    signal.throwIfAborted();
    return segment;
  }

  /** Ends a segment to which nothing more is written; not before what hangs lets go of it. */
  async #seal(segment: Segment): Promise<void> {
    const { hung } = this.#disk;
    const seal = (): Promise<void> => segment.seal().catch(() => {});
    if (hung === undefined) await this.#disk.take(seal).catch(() => {});
    else void hung.then(seal);
  }

  async #openFolder(): Promise<string> {
    if (this.#folder === undefined) {
      this.#opening ??= openWriterFolder(this.#options.folder, (folder) => this.#onBeat(folder));
      const folder = await this.#opening.finally(() => (this.#opening = undefined));
      if (this.#folder === undefined) {
        this.#folder = folder;
        this.#options.onOpen();
      }
    }
    return this.#folder.path;
  }

  #newPath(): string {
    return join(this.#folder?.path ?? "", this.#nextName());
  }

  #end(segment: Segment): void {
    this.#current = undefined;
    segment.sealed = true;
    segment.seal().then(this.#options.onWritten, this.#options.onWritten);
  }

  #begin(segment: Segment): Segment {
    this.#current = segment;
    this.#options.onSegment(segment);
    return segment;
  }

  async #onBeat(folder: WriterFolder): Promise<void> {
    const well = (await folder.isThere()) && !(await this.#current?.isRemoved());
    if (well || this.#away || this.#closed || folder !== this.#folder) return;
    while (this.#draining !== undefined) await this.#draining;
    if (this.#away || this.#closed) return;
    const leave = this.#turnAway([], new Error(REMOVED)).then(() => {
      this.#draining = undefined;
      void this.#tryDisk();
    });
    this.#draining = leave;
    await leave;
  }

  /** Lets go of a folder and of files that somebody removed; gives what can be saved of them. */
  async #leaveRemoved(): Promise<readonly SpooledRecord[]> {
    const folder = this.#folder;
    const there = folder === undefined || (await folder.isThere());
    if (there && !(await this.#current?.isRemoved())) return [];
    if (!there) {
      folder.abandon();
      this.#folder = undefined;
    }
    this.#current = undefined;
    return this.#options.saveRemoved();
  }

  async #turnAway(records: readonly SpooledRecord[], error: unknown): Promise<void> {
    const saved = await this.#disk.take(() => this.#leaveRemoved()).catch(() => []);
    const segment = this.#current;
    this.#current = undefined;
    if (segment !== undefined) await this.#seal(segment);
    const first = !this.#away && !this.#returning;
    this.#away = true;
    this.#returning = false;
    const unwritten = [...saved, ...records, ...this.#queue];
    this.#queue = [];
    this.#queueBytes = 0;
    this.#options.onAway(unwritten, error, first);
    for (const wake of this.#waiters.splice(0)) wake();
    if (this.#closed) return;
    clearTimeout(this.#retry);
    const { hung } = this.#disk;
    if (hung === undefined) {
      this.#retry = setTimeout(() => void this.#tryDisk(), this.#options.retryMs);
      this.#retry.unref();
    } else {
      void hung.then(() => this.#tryDisk());
    }
  }

  async #tryDisk(): Promise<void> {
    clearTimeout(this.#retry);
    await this.#draining;
    if (this.#closed || !this.#away) return;
    try {
      await this.#disk.take(async () => {
        await probeDisk(join(await this.#openFolder(), ".probe"));
      });
    } catch (error) {
      await this.#turnAway([], error);
      return;
    }
    if (this.#closed) return;
    this.#away = false;
    this.#returning = true;
    this.#draining ??= this.#drain();
  }

  /** What `process.exit()` would cut off. The next process adopts it. */
  #writeAtExit(): void {
    const records = [...this.#writing, ...this.#queue];
    if (this.#folder === undefined || records.length === 0 || this.hangs) return;
    try {
      const file = openSync(join(this.#folder.path, this.#nextName()), "wx", 0o600);
      writevSync(file, [SEGMENT_MAGIC, ...records.flatMap((r) => [frame(r, r.time), r.bytes])]);
      closeSync(file);
    } catch {
      // There is nobody left to tell.
    }
  }
}
