import { DiskTurns } from "./disk-turns.ts";
import { type Overdue, TRACE_HAD_TO_GO } from "./overdue.ts";
import type { Segment, SpooledRecord } from "./segment.ts";
import { isMissing } from "./writer-folder.ts";

export interface ShelfOptions {
  /** Bytes of all files; past them the oldest traces go. */
  maxBytes: number;
  /** What has to go. */
  overdue: Overdue;
  /** How long the disk may take for one read. */
  answerMs: number;
  onDrop: (lost: Lost, why: string) => void;
  /** A part of a file that cannot be read. */
  onUnreadable: (segment: Segment, lost: Lost) => void;
}

export interface Lost {
  records: number;
  bytes: number;
}

/** The segments of one store, oldest first: read from one end, removed when spent, bounded by whole traces. */
export class SegmentShelf {
  readonly #options: ShelfOptions;
  #segments: Segment[] = [];
  readonly #disk: DiskTurns;

  constructor(options: ShelfOptions) {
    this.#options = options;
    this.#disk = new DiskTurns(options.answerMs);
  }

  get unread(): number {
    return this.#sum((segment) => segment.unread);
  }

  /** Records that are not settled. */
  get left(): number {
    return this.#sum((segment) => segment.records - segment.settled);
  }

  /** When the next record was taken in, or a little before. */
  get oldest(): number | undefined {
    return this.#segments.find((segment) => segment.unread > 0)?.time;
  }

  get overfull(): boolean {
    return this.#sum((segment) => segment.size) > this.#options.maxBytes;
  }

  add(...segments: Segment[]): void {
    this.#segments.push(...segments);
    this.#segments.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** The next record of the oldest file that has one. Gives up what has to go. */
  async peek(): Promise<SpooledRecord | undefined> {
    for (const segment of this.#segments) {
      while (segment.unread > 0) {
        const record = await segment.peek(this.#disk).catch(toUnread);
        // Later, perhaps: what cannot be read now, such as for want of file handles, is not lost.
        if (record === undefined) break;
        if (record === "broken") {
          await this.#skipBroken(segment);
          continue;
        }
        const why = this.#options.overdue.why(record);
        if (why === undefined) return record;
        segment.skip(record);
        this.#options.onDrop({ records: 1, bytes: record.bytes.length }, why);
      }
    }
    return undefined;
  }

  /** Removes the files all of whose records are settled. */
  removeSpent(): void {
    if (!this.#segments.some(isOver)) return;
    for (const segment of this.#segments) if (isOver(segment)) segment.remove().catch(() => {});
    this.#segments = this.#segments.filter((segment) => !isOver(segment));
  }

  /** The oldest files go until the rest fits, and with them whatever else there is of their traces. */
  async makeRoom(): Promise<void> {
    while (this.overfull) {
      const oldest = this.#segments.find((segment) => segment.sealed && segment.underWay === 0);
      if (oldest === undefined) return;
      const lost = { records: 0, bytes: 0 };
      for (;;) {
        const record = await oldest.peek(this.#disk).catch(() => "broken" as const);
        if (record === undefined) break;
        if (this.#disk.hung !== undefined) {
          if (lost.records > 0) this.#options.onDrop(lost, TRACE_HAD_TO_GO);
          return;
        }
        if (record === "broken") {
          await this.#skipBroken(oldest);
          continue;
        }
        oldest.skip(record);
        lost.records += 1;
        lost.bytes += record.bytes.length;
        this.#options.overdue.add(record.traceId, TRACE_HAD_TO_GO);
      }
      this.#options.onDrop(lost, TRACE_HAD_TO_GO);
      this.#segments = this.#segments.filter((segment) => segment !== oldest);
      await oldest.remove().catch(() => {});
    }
  }

  /** From now on a read may take this long at most. */
  hurry(ms: number): void {
    this.#disk.hurry(ms);
  }

  /**
   * Lets go of the files that somebody removed: gives them, and the records in them that can be read all the same. The
   * others are given up.
   */
  async leaveRemoved(): Promise<{ segments: ReadonlySet<Segment>; saved: SpooledRecord[] }> {
    const removed = new Set<Segment>();
    const saved: SpooledRecord[] = [];
    const lost: Lost = { records: 0, bytes: 0 };
    for (const segment of this.#segments) {
      if (!(await segment.isRemoved().catch(() => false))) continue;
      removed.add(segment);
      while (segment.unread > 0) {
        const record = await segment.peek(this.#disk).catch(() => "broken" as const);
        if (record === undefined || record === "broken") {
          const { records, bytes } = segment.giveUpRest();
          lost.records += records;
          lost.bytes += bytes;
          break;
        }
        saved.push({ ...segment.shift(record), segment: undefined });
      }
      await segment.close();
    }
    this.#segments = this.#segments.filter((segment) => !removed.has(segment));
    if (lost.records > 0) this.#options.onDrop(lost, "their files were removed");
    return { segments: removed, saved };
  }

  async #skipBroken(segment: Segment): Promise<void> {
    const lost = await segment.skipBroken(this.#disk).catch(() => segment.giveUpRest());
    this.#options.onUnreadable(segment, lost);
  }

  async close(): Promise<void> {
    // What hangs has the descriptor.
    if (this.#disk.hung !== undefined) return;
    for (const segment of this.#segments) await segment.close();
  }

  #sum(of: (segment: Segment) => number): number {
    let total = 0;
    for (const segment of this.#segments) total += of(segment);
    return total;
  }
}

function isOver(segment: Segment): boolean {
  return segment.sealed && segment.spent;
}

/** What a failed read means for a file: it is gone, or it cannot be read now. */
function toUnread(error: unknown): "broken" | undefined {
  return isMissing(error) ? "broken" : undefined;
}
