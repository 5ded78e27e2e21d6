import type { MatchCondition } from "@langchain/langgraph-checkpoint";

/**
 * Namespaces as one text, as LangGraph's PostgresStore keeps them, but so that a prefix of the text is a prefix
 * of the namespace and nothing in it is a wildcard: each label has an end mark and no special characters.
 * `["user_1"]` is `/:user~5f1/`, which is not the beginning of `["user_10"]`.
 */

/** Precedes every namespace, so that the empty prefix is a prefix like any other. */
const ROOT = "/";
const LABEL_END = "/";

export function toPath(namespace: readonly string[]): string {
  return [
    ROOT,
    ...namespace.map((label) => label.replace(/[/~:.%_\\]/g, toEscape) + LABEL_END),
  ].join(":");
}

export function fromPath(path: string): string[] {
  return path
    .split(":")
    .slice(1)
    .map((label) =>
      label
        .slice(0, -LABEL_END.length)
        .replace(/~([0-9a-f]{2})/g, (_, code: string) =>
          String.fromCharCode(Number.parseInt(code, 16)),
        ),
    );
}

function toEscape(character: string): string {
  return `~${character.charCodeAt(0).toString(16)}`;
}

/** Whether a namespace begins or ends as asked; `*` is any one label. */
export function matchesNamespace(
  namespace: readonly string[],
  { matchType, path }: MatchCondition,
): boolean {
  const start = matchType === "prefix" ? 0 : namespace.length - path.length;
  return (
    start >= 0 && path.every((label, index) => label === "*" || label === namespace[start + index])
  );
}
