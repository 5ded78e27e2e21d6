/** What one check found. */
export interface Finding {
  /** What was looked at, such as `database`. */
  check: string;
  /** `skipped`: there was nothing to look at, or something before it failed. */
  status: "ok" | "warning" | "failed" | "skipped";
  /** One sentence for a person. */
  message: string;
  /** What to do about it; only where something is wrong. */
  hint?: string;
}

/** Makes findings about one subject. */
export interface Reporter {
  ok(message: string): Finding;
  skipped(message: string): Finding;
  warning(message: string, hint: string): Finding;
  failed(message: string, hint: string): Finding;
}

export function reportOn(check: string): Reporter {
  return {
    ok: (message) => ({ check, status: "ok", message }),
    skipped: (message) => ({ check, status: "skipped", message }),
    warning: (message, hint) => ({ check, status: "warning", message, hint }),
    failed: (message, hint) => ({ check, status: "failed", message, hint }),
  };
}
