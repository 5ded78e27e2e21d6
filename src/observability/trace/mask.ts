/** Masks one field before it leaves the process; gets the serialised text and the attribute's name. */
export type Mask = (text: string, field: string) => string;

/** Says once per kind that something was withheld. */
type Notice = (kind: "mask", message: string) => void;

/** `mask` as it is safe to call: what it cannot mask is withheld, and `notice` hears why. */
export function createMask(mask: Mask | undefined, notice: Notice): Mask {
  if (mask === undefined) return (text) => text;
  return (text, field) => {
    try {
      const masked: unknown = mask(text, field);
      if (typeof masked === "string") return masked;
      const what = masked === null ? "null" : typeof masked;
      notice("mask", `it returned ${what} instead of a string`);
    } catch (error) {
      notice("mask", error instanceof Error ? error.message : String(error));
    }
    return "<withheld: the mask failed>";
  };
}
