import { allowsColor } from "../config/env.ts";
import type { Finding } from "../doctor/check.ts";
import { examine } from "../doctor/examine.ts";
import { createPaint, type Paint } from "./banner.ts";
import type { ServeOptions } from "./options.ts";

/**
 * `aegra doctor`: looks at everything a server of this project needs and says what is wrong and what to do.
 * Resolves with the exit code: 1 if anything failed.
 */
export async function doctor(options: ServeOptions & { json: boolean }): Promise<number> {
  const { json, ...place } = options;
  const paint = createPaint(allowsColor(process.stdout));
  const print = (finding: Finding): void => {
    if (!json) process.stdout.write(renderFinding(finding, paint));
  };
  const findings = await examine({ ...place, mode: "start", terminal: false }, print);
  const failed = findings.filter(({ status }) => status === "failed").length;
  const warnings = findings.filter(({ status }) => status === "warning").length;
  if (json) {
    process.stdout.write(`${JSON.stringify({ ok: failed === 0, findings }, null, 2)}\n`);
  } else {
    const verdict =
      failed > 0
        ? `${failed} thing${failed === 1 ? "" : "s"} to mend`
        : warnings > 0
          ? `ready, with ${warnings} warning${warnings === 1 ? "" : "s"}`
          : "ready";
    process.stdout.write(`\n${verdict}\n`);
  }
  return failed > 0 ? 1 : 0;
}

const MARKS = { ok: "ok", warning: "warn", failed: "FAIL", skipped: "-" } as const;

/** One finding as lines for a terminal. */
export function renderFinding(finding: Finding, paint: Paint): string {
  const color = { ok: paint.green, warning: paint.yellow, failed: paint.red, skipped: paint.dim };
  const mark = color[finding.status](MARKS[finding.status].padEnd(5));
  const line = `${mark} ${finding.check.padEnd(10)} ${finding.message}\n`;
  return finding.hint === undefined ? line : `${line}${" ".repeat(17)}${paint.dim(finding.hint)}\n`;
}
