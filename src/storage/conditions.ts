import type { Filter } from "../protocol/filters.ts";

/** A WHERE clause and its parameters, grown one condition at a time. */
export class Conditions {
  readonly params: unknown[] = [];
  readonly #conditions: string[] = [];

  /** Adds a condition; `p` binds a value and gives its placeholder. */
  add(condition: (p: (value: unknown) => string) => string): this {
    this.#conditions.push(condition((value) => this.bind(value)));
    return this;
  }

  /** Adds what an authorization filter asks of a `metadata` column. */
  addFilter(filter: Filter | undefined, column = "metadata"): this {
    return filter ? this.add((p) => `${column} @> ${p(toContained(filter))}::jsonb`) : this;
  }

  /** Binds a value for another part of the statement; gives its placeholder. */
  bind(value: unknown): string {
    return `$${this.params.push(value)}`;
  }

  /** The clause with its keyword, or an empty string. */
  get sql(): string {
    return this.#conditions.length === 0 ? "" : `WHERE ${this.#conditions.join(" AND ")}`;
  }
}

/**
 * The parameter of `metadata @> $n::jsonb` that makes it an authorization filter. Without a filter every row
 * has it. Scalars are contained only where they are equal, arrays where all their items are in an array. What
 * `jsonb` cannot hold is not replaced, as elsewhere, but fails: two identities must not become one.
 */
export function toContained(filter: Filter | undefined): string {
  return JSON.stringify(filter ?? {});
}
