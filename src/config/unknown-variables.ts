import type { Variables } from "./env.ts";

/** The variables with these prefixes that the server reads. */
export const KNOWN_VARIABLES = [
  "AEGRA_DATA_DIR",
  "AEGRA_ROLE",
  "AEGRA_TRACES_DIR",
  "AEGRA_TRACES_MAX_MB",
  "AEGRA_TRACES_SPOOL",
  "LANGFUSE_BASEURL",
  "LANGFUSE_BASE_URL",
  "LANGFUSE_FLUSH_AT",
  "LANGFUSE_FLUSH_INTERVAL",
  "LANGFUSE_HOST",
  "LANGFUSE_LOGGING",
  "LANGFUSE_PUBLIC_KEY",
  "LANGFUSE_RELEASE",
  "LANGFUSE_SAMPLE_RATE",
  "LANGFUSE_SECRET_KEY",
  "LANGFUSE_TIMEOUT",
  "LANGFUSE_TRACING_ENABLED",
  "LANGFUSE_TRACING_ENVIRONMENT",
];

/**
 * Sentences about variables that look like the server's and are not, each with the name that was probably meant.
 * `AEGRA_` is this server's own, so every other name is told. `LANGFUSE_` belongs to Langfuse, whose SDKs and server
 * have hundreds of names: only what is a letter or two from a name that is read here is told.
 *
 * `references` is text that uses variables as `${NAME}` or `${{ env.NAME }}`, such as a config file: these are meant.
 */
export function describeUnknownVariables(env: Variables, references: string): string[] {
  const meant = new Set(
    [...references.matchAll(/\$\{\{?\s*(?:env\.)?(\w+)/gu)].map(([, name = ""]) => name),
  );
  return Object.keys(env)
    .filter((name) => !!env[name]?.trim() && !meant.has(name) && !isServiceLink(name, env))
    .toSorted()
    .flatMap((name) => describe(name) ?? []);
}

function describe(name: string): string | undefined {
  if (KNOWN_VARIABLES.includes(name)) return undefined;
  const [, prefix = "", rest = ""] = /^(AEGRA_|LANGFUSE_)(.+)$/u.exec(name) ?? [];
  if (prefix === "") return undefined;
  const isOurs = prefix === "AEGRA_";
  const limit = isOurs ? Math.ceil(rest.length / 3) : rest.length < 10 ? 1 : 2;
  const nearest = KNOWN_VARIABLES.filter((known) => known.startsWith(prefix))
    .map((known) => ({ known, distance: countEdits(name, known) }))
    .filter(({ known, distance }) => distance <= limit && (isOurs || !isVariant(name, known)))
    .toSorted((a, b) => a.distance - b.distance)[0];
  if (nearest === undefined && !isOurs) return undefined;
  const hint = nearest === undefined ? "" : `; did you mean ${nearest.known}?`;
  return `${name} is not a known variable and has no effect on the server${hint}`;
}

/** `LANGFUSE_HOST_EU` and `LANGFUSE_PUBLIC_KEY2` are no slips, but names of the project's own. */
function isVariant(name: string, known: string): boolean {
  return /\d/u.test(name) || name.startsWith(`${known}_`);
}

/** Kubernetes gives every container variables about each Service, such as `AEGRA_PORT` for one named `aegra`. */
function isServiceLink(name: string, env: Variables): boolean {
  const [, service] = /^(\w+?)_(?:SERVICE_(?:HOST|PORT)|PORT)(?:_\w+)?$/u.exec(name) ?? [];
  return service !== undefined && env[`${service}_SERVICE_HOST`] !== undefined;
}

/** Letters to insert, remove, replace or swap with their neighbour until `a` is `b`. */
function countEdits(a: string, b: string): number {
  let last: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? last[j - 2] : undefined;
      next[j] = Math.min(
        (row[j] ?? 0) + 1,
        (next[j - 1] ?? 0) + 1,
        (row[j - 1] ?? 0) + cost,
        (swapped ?? Infinity) + 1,
      );
    }
    last = row;
    row = next;
  }
  return row[b.length] ?? 0;
}
