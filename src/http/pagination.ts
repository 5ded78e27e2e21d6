import type { RouteAnswer } from "./route.ts";

/** A page of a search, with the headers that tell where the next one starts. */
export function toPage(
  rows: readonly object[],
  total: number,
  page: { limit: number; offset: number; select?: readonly string[] | undefined },
): RouteAnswer {
  const next = page.offset + rows.length;
  return {
    json: pick(rows, page.select),
    headers: {
      "X-Pagination-Total": String(total),
      ...(next < total && { "X-Pagination-Next": String(next) }),
    },
  };
}

/** Each row with only the fields that were asked for. */
export function pick(rows: readonly object[], select: readonly string[] | undefined): object[] {
  if (!select) return [...rows];
  return rows.map((row) =>
    Object.fromEntries(Object.entries(row).filter(([key]) => select.includes(key))),
  );
}
