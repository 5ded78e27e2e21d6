import type { Logger } from "pino";
import type { DeliveryState, Sender, SenderOptions } from "./sender.ts";
import type { Stream } from "./spooled-sender.ts";

/** What a target's observer says in the log, each thing once however often it happens. */
export interface Notices {
  /** Something was too long, or the mask failed. */
  readonly notice: (kind: "cut" | "mask", message: string) => void;
  /** An error of tracing's own. */
  readonly bug: (error: unknown) => void;
}

export function createNotices(log: Logger): Notices {
  const said = new Set<string>();
  const once = (kind: string, say: () => void): void => {
    if (said.has(kind)) return;
    said.add(kind);
    say();
  };
  return {
    notice(kind, message) {
      once(kind, () => {
        if (kind === "cut")
          log.warn(
            `Something was too long for a trace and was cut, with a mark (${message}). Said once.`,
          );
        else
          log.error(
            `The mask of the configuration failed: ${message}. The fields it fails on are withheld. Said once.`,
          );
      });
    },
    bug(error) {
      once("bug", () =>
        log.error(
          { err: error },
          "Tracing met an error of its own; the run is not affected. Said once.",
        ),
      );
    },
  };
}

/** What is said of a target that is not known to be ill; `where` is its name and address. */
export function describeOn(where: string, state: DeliveryState): string {
  switch (state) {
    case "up":
      return `Traces go to ${where}.`;
    case "recovering":
      return `Traces go to ${where} again; what waited is being sent.`;
    default:
      return `Traces will go to ${where}; none has been accepted yet.`;
  }
}

/** Closes a target's senders, and tells what was not delivered and what waits for the next start. */
export async function closeSenders(
  senders: Partial<Record<Stream, Sender>>,
  about: { title: string; log: Logger; timeoutMs: number },
): Promise<void> {
  const { title, log, timeoutMs } = about;
  await Promise.all(
    Object.entries(senders).map(async ([stream, sender]) => {
      const before = sender.counts().dropped;
      await sender.close(timeoutMs);
      const { dropped, pending } = sender.counts();
      const lost = dropped - before;
      if (lost > 0)
        log.warn(
          { [stream]: lost },
          `${lost} ${stream} were not delivered to ${title} before the server stopped.`,
        );
      if (pending > 0) {
        const place = sender.store.kind === "database" ? "in the database" : "on disk";
        log.info(
          { [stream]: pending },
          `${pending} ${stream} for ${title} wait ${place} for the next start.`,
        );
      }
    }),
  );
}

/** What a sender says of records a target will not take. */
export function refusals(
  title: string,
  stream: Stream,
  log: Logger,
): Pick<SenderOptions, "onRefused" | "onPartial"> {
  const one = stream === "spans" ? "a span" : "a score";
  const who = title.charAt(0).toUpperCase() + title.slice(1);
  return {
    onRefused: (record, message, kept) =>
      log.error(
        { trace_id: record.traceId, bytes: record.bytes.length },
        `${who} refused ${one} for good: ${message}${kept ? " (kept as a dead letter: aegra traces dead-letters)" : ""}`,
      ),
    onPartial: (rejected, message, kept) =>
      log.error(
        { rejected },
        `${who} left out ${rejected} ${stream} of an accepted request: ${message}${kept ? " (kept as dead letters: aegra traces dead-letters)" : ""}`,
      ),
  };
}
