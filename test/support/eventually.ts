import { vi } from "vitest";

/** Waits until `check` does not throw any more, and gives what it returned. */
export function eventually<T>(check: () => T | Promise<T>): Promise<T> {
  return vi.waitFor(check, { timeout: 60_000, interval: 20 });
}
