import { ServerError } from "../errors.ts";
import type { Conditions } from "./conditions.ts";

/** A placeholder for a bound value. */
type Bind = (value: unknown) => string;
type Comparison = (field: string, operand: unknown, bind: Bind) => string;

const ORDER = { $gt: ">", $gte: ">=", $lt: "<", $lte: "<=" } as const;

/** What a field is compared with; `field` is its JSON, NULL where the item has no such field. */
const COMPARISONS: Readonly<Record<string, Comparison>> = {
  $eq: (field, operand, bind) => `${field} = ${bind(JSON.stringify(operand))}::jsonb`,
  // Also where there is no such field: it is not equal.
  $ne: (field, operand, bind) =>
    `${field} IS DISTINCT FROM ${bind(JSON.stringify(operand))}::jsonb`,
  $in: (field, operand, bind) =>
    `${field} IN (SELECT jsonb_array_elements(${bind(JSON.stringify(operand))}::jsonb))`,
  $nin: (field, operand, bind) =>
    `(${field} IN (SELECT jsonb_array_elements(${bind(JSON.stringify(operand))}::jsonb))) IS NOT TRUE`,
  $exists: (field, operand) => `${field} IS ${operand ? "NOT " : ""}NULL`,
  ...Object.fromEntries(
    Object.entries(ORDER).map(([name, sign]) => [
      name,
      (field: string, operand: unknown, bind: Bind) => toOrdered(field, sign, { operand, bind }),
    ]),
  ),
};

/** Numbers are compared with numbers and texts with texts; a field of another kind is neither more nor less. */
function toOrdered(
  field: string,
  sign: string,
  { operand, bind }: { operand: unknown; bind: Bind },
): string {
  const [type, value] =
    typeof operand === "number"
      ? ["number", `(${field} #>> '{}')::numeric ${sign} ${bind(operand)}::numeric`]
      : ["string", `(${field} #>> '{}') COLLATE "C" ${sign} ${bind(operand)}::text COLLATE "C"`];
  // The cast is in a CASE because PostgreSQL may look at the sides of an AND in any order.
  return `CASE WHEN jsonb_typeof(${field}) = '${type}' THEN ${value} ELSE false END`;
}

/**
 * Adds the conditions of a search's filter on the items' values, as LangGraph's stores know it: a literal is
 * equality, an object of operators is all of them, any other object is contained in the field.
 *
 * @throws ServerError `invalid_request` for an operator that is not known, or an operand that is none.
 */
export function addStoreFilter(
  conditions: Conditions,
  filter: Record<string, unknown> | undefined,
): void {
  for (const [name, condition] of Object.entries(filter ?? {})) {
    for (const [operator, operand] of toComparisons(name, condition)) {
      conditions.add((bind) => {
        const field = `(s.value -> ${bind(name)}::text)`;
        if (operator === CONTAINS) return `${field} @> ${bind(JSON.stringify(operand))}::jsonb`;
        return COMPARISONS[operator]!(field, operand, bind);
      });
    }
  }
}

const CONTAINS = "contains";

function toComparisons(name: string, condition: unknown): [string, unknown][] {
  const isObject = typeof condition === "object" && condition !== null && !Array.isArray(condition);
  if (!isObject) return [["$eq", condition]];
  const entries = Object.entries(condition);
  if (!entries.some(([key]) => key.startsWith("$"))) return [[CONTAINS, condition]];
  for (const [operator, operand] of entries) assertOperator(name, operator, operand);
  return entries;
}

function assertOperator(name: string, operator: string, operand: unknown): void {
  const where = `in the filter on "${name}"`;
  if (!Object.hasOwn(COMPARISONS, operator)) {
    const known = Object.keys(COMPARISONS).join(", ");
    throw refusal(`Unknown operator ${operator} ${where}; known are ${known}.`);
  }
  const isOrdered = typeof operand === "string" || Number.isFinite(operand);
  if (operator in ORDER && !isOrdered) {
    throw refusal(`${operator} ${where} needs a number or a text.`);
  }
  if ((operator === "$in" || operator === "$nin") && !Array.isArray(operand)) {
    throw refusal(`${operator} ${where} needs a list.`);
  }
  if (operator === "$exists" && typeof operand !== "boolean") {
    throw refusal(`$exists ${where} needs true or false.`);
  }
}

function refusal(message: string): ServerError {
  return new ServerError("invalid_request", message);
}
