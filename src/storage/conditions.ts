/** A WHERE clause and its parameters, grown one condition at a time. */
export class Conditions {
  readonly params: unknown[] = [];
  readonly #conditions: string[] = [];

  /** Adds a condition; `p` binds a value and gives its placeholder. */
  add(condition: (p: (value: unknown) => string) => string): this {
    this.#conditions.push(condition((value) => `$${this.params.push(value)}`));
    return this;
  }

  /** The clause with its keyword, or an empty string. */
  get sql(): string {
    return this.#conditions.length === 0 ? "" : `WHERE ${this.#conditions.join(" AND ")}`;
  }
}
