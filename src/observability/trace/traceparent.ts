const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?$/;

/**
 * The trace and span a W3C `traceparent` header names; `undefined` for a missing or malformed one, which the
 * standard says to ignore. https://www.w3.org/TR/trace-context/
 */
export function parseTraceparent(
  header: string | undefined,
): { traceId: string; spanId: string } | undefined {
  const [, version, traceId, spanId] = TRACEPARENT.exec(header?.trim() ?? "") ?? [];
  if (version === undefined || traceId === undefined || spanId === undefined) return undefined;
  const extended = header?.trim().length !== 55;
  if (version === "ff" || (version === "00" && extended)) return undefined;
  return /^0+$/.test(traceId) || /^0+$/.test(spanId) ? undefined : { traceId, spanId };
}
