/** Stands for a field or an event one of the two does not have. */
export const ABSENT = "(absent)";

export interface Difference {
  /** `case/label/field/...`; an event by its name and number, an item of another array by its index. */
  at: string;
  official: unknown;
  ours: unknown;
}

/** Where two normalised recordings differ, at the deepest place at which they do. */
export function compare(official: unknown, ours: unknown, at: string): Difference[] {
  if (Object.is(official, ours)) return [];
  if (isEvents(official) && isEvents(ours)) return compareEvents(official, ours, at);
  if (Array.isArray(official) && Array.isArray(ours)) {
    const length = Math.max(official.length, ours.length);
    return Array.from({ length }, (_, index) =>
      compare(
        index < official.length ? official[index] : ABSENT,
        index < ours.length ? ours[index] : ABSENT,
        `${at}/${index}`,
      ),
    ).flat();
  }
  if (isRecord(official) && isRecord(ours)) {
    const keys = new Set([...Object.keys(official), ...Object.keys(ours)]);
    return [...keys].flatMap((key) =>
      compare(
        Object.hasOwn(official, key) ? official[key] : ABSENT,
        Object.hasOwn(ours, key) ? ours[key] : ABSENT,
        `${at}/${key}`,
      ),
    );
  }
  return [{ at, official, ours }];
}

interface Event {
  event: string;
}

/** Pairs the events of two streams by the longest sequence of names they share, so that one more is one more. */
function compareEvents(official: Event[], ours: Event[], at: string): Difference[] {
  const differences: Difference[] = [];
  const counts = new Map<string, number>();
  const place = ({ event }: Event): string => {
    const count = (counts.get(event) ?? 0) + 1;
    counts.set(event, count);
    return `${at}/${event}#${count}`;
  };
  const lengths = sharedLengths(official, ours);
  let [left, right] = [0, 0];
  while (left < official.length || right < ours.length) {
    const [theirs, own] = [official[left], ours[right]];
    if (theirs && own && theirs.event === own.event) {
      differences.push(...compare({ ...theirs }, { ...own }, place(theirs)));
      left += 1;
      right += 1;
    } else if (own && (!theirs || lengths[left]![right + 1]! >= lengths[left + 1]![right]!)) {
      differences.push({ at: place(own), official: ABSENT, ours: own });
      right += 1;
    } else {
      differences.push({ at: place(theirs!), official: theirs, ours: ABSENT });
      left += 1;
    }
  }
  return differences;
}

/** `[i][j]`: how many events the rests from i and from j have in common, in order. */
function sharedLengths(left: Event[], right: Event[]): number[][] {
  const lengths = Array.from({ length: left.length + 1 }, () =>
    Array.from({ length: right.length + 1 }, () => 0),
  );
  for (let i = left.length - 1; i >= 0; i -= 1) {
    for (let j = right.length - 1; j >= 0; j -= 1) {
      lengths[i]![j] =
        left[i]!.event === right[j]!.event
          ? lengths[i + 1]![j + 1]! + 1
          : Math.max(lengths[i + 1]![j]!, lengths[i]![j + 1]!);
    }
  }
  return lengths;
}

function isEvents(value: unknown): value is Event[] {
  return (
    Array.isArray(value) &&
    value.length > 0 &&
    value.every(
      (item) =>
        isRecord(item) && typeof item["event"] === "string" && ("data" in item || "id" in item),
    )
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a place is meant by a pattern, in which `*` is one part of it and `**` any number of parts. */
export function matches(at: string, pattern: string): boolean {
  const source = pattern
    .split("/")
    .map((part) =>
      part === "**"
        ? "(?:.*)"
        : part.replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`).replaceAll("*", "[^/]*"),
    )
    .join("/")
    .replaceAll("/(?:.*)/", "/(?:.*/)?")
    .replace(/^\(\?:\.\*\)\//, "(?:.*/)?")
    .replace(/\/\(\?:\.\*\)$/, "(?:/.*)?");
  return new RegExp(`^${source}$`, "s").test(at);
}
