import type { OtlpSpan, OtlpValue } from "../otlp-protobuf.ts";

/** Shorter texts are left alone: ids, names and numbers, without which a span is no use. */
const SHORTEST_BYTES = 500;
/** How much smaller the texts are made where a span still does not fit, as JSON writes some of them longer. */
const STEP = 0.7;
const MARK = /… <cut, \d+ characters in all>$/;

export interface FitOptions {
  encode: (span: OtlpSpan) => Buffer;
  /** The most an encoded span may have. */
  maxBytes: number;
  /** Heard where a span was cut. */
  onCut: (what: string) => void;
}

/**
 * Encodes a span in at most `maxBytes`, with its longest texts cut and marked where it would be larger: a trace whose
 * root is missing is no trace. What is too large even so is given as it is.
 */
export function encodeToFit(span: OtlpSpan, { encode, maxBytes, onCut }: FitOptions): Buffer {
  // What its texts alone make too large is not written first, to be thrown away. A text has at least a byte a character.
  const whole = charactersOf(span) > maxBytes ? undefined : encode(span);
  if (whole !== undefined && whole.length <= maxBytes) return whole;
  const sizes = textsOf(span).map((text) => Buffer.byteLength(text));
  const texts = sizes.reduce((total, size) => total + size, 0);
  const rest = whole === undefined ? 0 : whole.length - texts;
  let most = levelOf(sizes, Math.max(maxBytes - rest, maxBytes / 4));
  while (most >= SHORTEST_BYTES) {
    const bytes = encode(cutTexts(span, most));
    if (bytes.length <= maxBytes) {
      onCut(`a span of more than ${maxBytes} bytes`);
      // The encoder's buffer has been made for what is larger, and lives as long as these bytes.
      return Buffer.from(bytes);
    }
    most *= STEP;
  }
  return whole ?? encode(span);
}

/** The length that, where it is the longest there is, lets all of `sizes` together fit into `room`. */
function levelOf(sizes: readonly number[], room: number): number {
  let left = room;
  let count = sizes.length;
  for (const size of sizes.toSorted((a, b) => a - b)) {
    if (size * count > left) break;
    left -= size;
    count -= 1;
  }
  return count === 0 ? room : left / count;
}

/** Of the texts that make a span large. It is asked of every span, so it makes nothing. */
function charactersOf({ attributes, statusMessage = "" }: OtlpSpan): number {
  let characters = statusMessage.length;
  for (const key in attributes) {
    const value = attributes[key];
    if (typeof value === "string") characters += value.length;
  }
  return characters;
}

function textsOf({ attributes, events = [], statusMessage = "" }: OtlpSpan): string[] {
  const values = [attributes, ...events.map((event) => event.attributes)].flatMap((each) =>
    Object.values(each),
  );
  return [...values, statusMessage].filter((value) => typeof value === "string");
}

function cutTexts(span: OtlpSpan, most: number): OtlpSpan {
  const { attributes, events, statusMessage } = span;
  return {
    ...span,
    attributes: cutValues(attributes, most),
    ...(statusMessage === undefined ? {} : { statusMessage: cutText(statusMessage, most) }),
    ...(events === undefined
      ? {}
      : {
          events: events.map((event) => ({
            ...event,
            attributes: cutValues(event.attributes, most),
          })),
        }),
  };
}

function cutValues(
  values: Readonly<Record<string, OtlpValue | undefined>>,
  most: number,
): Record<string, OtlpValue | undefined> {
  return Object.fromEntries(
    Object.entries(values).map(([key, value]) => [
      key,
      typeof value === "string" ? cutText(value, most) : value,
    ]),
  );
}

function cutText(text: string, most: number): string {
  if (Buffer.byteLength(text) <= most) return text;
  // What was cut before tells how long it once was.
  const [before] = MARK.exec(text.slice(-60)) ?? [];
  const mark = before ?? `… <cut, ${text.length} characters in all>`;
  const room = Math.floor(most) - Buffer.byteLength(mark);
  const kept = Buffer.from(text.slice(0, room)).subarray(0, room).toString();
  // Half a character may be left at the end.
  return `${kept.replace(/\uFFFD$/, "")}${mark}`;
}
